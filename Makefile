# Thin targets over an ordinary package: everything they do is `pip`, `retrain`, `pytest`, `ruff`,
# `mypy`. `make help` lists them. Variables: PYTHON (3.11 to 3.13), TORCH_INDEX (a package index
# with the torch build you want, for instance https://download.pytorch.org/whl/cpu), STOCKS (those
# that the demo takes: make demo STOCKS=NVDA).

PYTHON ?= python3
TORCH_INDEX ?=
STOCKS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
# The lock is complete, so there is nothing to resolve, unless another Python needs more. Modules are
# compiled afterwards, on all cores, but for those that are hardly ever imported; a few are templates
# and no Python, which is no error.
QUICKLY := --no-compile
SELDOM := /(tests|transformers/models|sklearn/datasets)/
TORCH := $(shell grep '^torch==' locks/requirements.txt)

.DEFAULT_GOAL := help
.PHONY: help demo ui mlflow test test-long coverage check map ci clean

help: ## list the targets
	@sed -nE 's/^\$$\(VENV\)(:.*## )/$(VENV)\1/; s/^([.a-z-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(VENV)/.locked: locks/requirements.txt locks/oracles.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) must be Python 3.11, 3.12 or 3.13: install one, then make PYTHON=python3.12"; exit 1; }
	@echo "Creating $(VENV) from locks/ (a few minutes the first time)"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null && $(PYTHON) -m venv $(VENV) || \
	  { $(PYTHON) -m venv --without-pip $(VENV) && $(BIN)/python locks/get_pip.py; }
	$(PIP) install $(QUICKLY) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install $(QUICKLY) --no-deps -r locks/requirements.txt
	@$(PIP) check >/dev/null || $(PIP) install $(QUICKLY) -r locks/requirements.txt
	$(PIP) install $(QUICKLY) --no-deps --ignore-requires-python -r locks/oracles.txt
	@$(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV): $(VENV)/.installed ## create .venv, or bring it up to date with locks/

demo: $(VENV)/.installed ## train and compare the six bundled symbols on the CPU
	@$(BIN)/retrain demo $(if $(STOCKS),--stocks $(STOCKS))

ui: $(VENV)/.installed ## Dagster's web pages and daemon on http://127.0.0.1:3000
	@$(BIN)/retrain ui

mlflow: $(VENV)/.installed ## MLflow's web pages on http://127.0.0.1:5000
	@$(BIN)/retrain mlflow

test: $(VENV)/.installed ## the default tests
	@$(PYTEST)

test-long: $(VENV)/.installed ## the tests that take minutes
	@$(BIN)/python -m pytest -m long --timeout 1800

coverage: $(VENV)/.installed ## the default tests, with what they cover of lines and branches
	@$(PYTEST) --cov --cov-report=term:skip-covered

check: $(VENV)/.installed ## lint, formatting, types, direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest retrain_assets_tests/test_layers.py

map: ## what each module is for
	@git ls-files 'retrain_assets/*.py' | grep -v __init__ | while read file; do \
	  printf "%s\n    %s\n" "$${file#retrain_assets/}" "$$(sed -n '1s/"""//gp' "$$file")"; done

ci: ## set-up, check and test, each timed; fails if any of them does
	@status=0; report=""; \
	for part in $(VENV)/.installed check test; do \
	  start=$$(date +%s); result=passed; \
	  $(MAKE) --no-print-directory $$part || { status=1; result=FAILED; }; \
	  name=$${part#$(VENV)/.}; \
	  minutes=$$(awk "BEGIN {printf \"%.1f\", ($$(date +%s) - $$start) / 60}"); \
	  report="$$report$$name: $$result in $$minutes min\n"; \
	  if [ $$name = installed ] && [ $$status = 1 ]; then break; fi; \
	done; \
	printf "\n$$report"; exit $$status

clean: ## remove .venv and caches; data/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
