"""The lower layers know neither Dagster nor MLflow, nor anything that is built on them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import retrain_assets

PACKAGE = Path(retrain_assets.__file__).parent
LOWER = ("market", "models", "training", "evaluation")
# What both layers use. Every other module is of the upper layer.
SHARED = ("errors", "files")
HIGHER = ("defs", "commands", "export")
UPPER = sorted({*HIGHER, *(path.stem for path in PACKAGE.glob("*.py"))} - {"__init__", *SHARED})
FORBIDDEN = ("dagster", "mlflow", *(f"retrain_assets.{name}" for name in UPPER))
# A GPU machine that runs only the training needs no more than these.
BARE = {"torch", "peft", "safetensors", "numpy", "pandas", "transformers", "huggingface_hub"}
MODULES = [path for layer in LOWER for path in sorted((PACKAGE / layer).rglob("*.py"))]
BARE_MODULES = [
    path for path in MODULES if path.relative_to(PACKAGE).parts[0] in {"models", "training"}
]


def imported(tree: ast.AST, package: str) -> set[str]:
    """Absolute dotted names of everything `tree` imports; `package` resolves relative ones."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def at_module_level(tree: ast.Module) -> ast.Module:
    """The statements that run on import: no function bodies, no `if TYPE_CHECKING:` blocks."""

    class Shallow(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.If | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else node

    shallow = Shallow().visit(tree)
    assert isinstance(shallow, ast.Module)
    return shallow


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def parsed(path: Path) -> tuple[ast.Module, str]:
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    return ast.parse(path.read_text(encoding="utf-8")), package


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lower_layers_never_import_upwards(path: Path) -> None:
    names = imported(*parsed(path))
    assert not [name for name in names for prefix in FORBIDDEN if within(name, prefix)]


@pytest.mark.parametrize("path", BARE_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_training_needs_few_packages(path: Path) -> None:
    tree, package = parsed(path)
    tops = {name.split(".")[0] for name in imported(at_module_level(tree), package)}
    assert tops - set(sys.stdlib_module_names) - {"retrain_assets"} <= BARE


@pytest.mark.parametrize("path", sorted((PACKAGE / "market").rglob("*.py")), ids=lambda p: p.stem)
def test_bars_know_nothing_of_models(path: Path) -> None:
    others = [f"{PACKAGE.name}.{name}" for name in LOWER if name != "market"]
    assert not [n for n in imported(*parsed(path)) for prefix in others if within(n, prefix)]


@pytest.mark.parametrize("path", BARE_MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_training_knows_nothing_of_evaluation(path: Path) -> None:
    evaluation = f"{PACKAGE.name}.evaluation"
    assert not [n for n in imported(*parsed(path)) if within(n, evaluation)]


def test_what_both_layers_use_is_not_of_either() -> None:
    shared = {f"{PACKAGE.name}.{name}" for name in SHARED}
    for name in SHARED:
        names = imported(*parsed(PACKAGE / f"{name}.py"))
        own = {n for n in names if within(n, PACKAGE.name)}
        assert not [n for n in own if not any(within(n, prefix) for prefix in shared)]


def test_a_folder_is_of_one_of_the_layers() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == {*LOWER, *HIGHER}


def test_the_map_of_the_house_names_what_there_is() -> None:
    page = PACKAGE.parent / "ARCHITECTURE.md"
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")))
    missing = {name for name in named if not any(f"/{f}".endswith(f"/{name}") for f in files)}
    assert missing == {"test_layers.py"}


def test_the_rule_sees_every_form_of_import() -> None:
    source = "import dagster as d\nfrom ..defs import io\nfrom retrain_assets import cli\n"
    names = imported(ast.parse(source), "retrain_assets.market")
    for prefix in ("dagster", "retrain_assets.defs", "retrain_assets.cli"):
        assert any(within(name, prefix) for name in names), prefix
