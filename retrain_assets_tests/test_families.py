"""Two families through one graph: nothing above `models/` knows any by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import mlflow
import pandas as pd
import pytest

from retrain_assets import runs
from retrain_assets.definitions import build_definitions
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.models.forecaster import families
from retrain_assets.training.adapter_store import ModelStore
from retrain_assets.work import Retrain, Search, Validation
from retrain_assets_tests.finished import Finished, ran
from retrain_assets_tests.installed import MONTH, entered

PACKAGE = Path(runs.__file__).parent
BOTH = Retrain(
    families=("kronos", "toto"),
    bases={"kronos": "tiny", "toto": "tiny"},
    max_steps=2,
    search=Search(grid={"num_samples": (2,), "temperature": (0.7, 1.0), "top_k": (None,)}),
)


@pytest.fixture(scope="module")
def done(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, runs.Outcome]]:
    """One stock after a run of both; the environment points there while the module's tests run."""
    root = tmp_path_factory.mktemp("both") / "data"
    shutil.copytree(template, root)
    with pytest.MonkeyPatch.context() as patch:
        home = entered(root, patch)
        outcome = ran(home, "AAA", work=BOTH)["AAA"]
        with dg.DagsterInstance.get() as instance:
            runs.summarise(build_definitions(home), instance, MONTH, [outcome], BOTH)
        yield home, outcome


@pytest.mark.long
def test_both_families_are_trained_searched_and_compared(
    done: tuple[Home, runs.Outcome],
) -> None:
    home, outcome = done
    assert outcome.failures == []
    assert outcome.record is not None
    variants = ("zero_shot", "adapter", "chosen")
    names = {"naive", "drift", "auto_ets", *(f"{f}.{v}" for f in BOTH.families for v in variants)}
    assert set(outcome.record["latency_s"]) == names
    assert {row["candidate"] for row in outcome.record["scores"]} == names
    assert set(outcome.record["p_values"]) == names - {"naive"}
    assert outcome.champion is not None
    assert set(outcome.champion["families"]) == set(BOTH.families)
    assert set(outcome.params) == set(BOTH.families)
    assert set(outcome.params["toto"]["chosen"]) == {"temperature", "use_past_values"}
    assert outcome.params["toto"]["summary"]["settings"] == 4
    # One set of origins for all, though patches differ.
    forecasts = pd.read_parquet(
        home.results / "comparison_results" / MONTH / "AAA_forecasts.parquet"
    )
    assert forecasts.notna().all(axis=None)
    folders = [home.assets / f"{name}_adapter" / MONTH for name in BOTH.families]
    adapters = [read_json(folder / "AAA.json") for folder in folders]
    assert len({json.dumps(a["split"]["segments"]["selection"]) for a in adapters}) == 1
    summary = json.loads(
        (home.results / "comparison_results" / MONTH / "comparison_summary_h16.json").read_text()
    )["results"]["AAA"]
    assert {"kronos_mae", "toto_mae", "toto_latency", "winner"} <= set(summary)
    validation = json.loads(
        (
            home.results / "validation_results" / MONTH / "hyperparameter_validation_results.json"
        ).read_text()
    )
    assert validation[0]["toto"]["status"] == "success"
    assert {"temperature", "use_past_values", "mae"} <= set(validation[0]["toto"]["best_params"])
    client = mlflow.MlflowClient(f"sqlite:///{home.tracking / 'mlflow.db'}")
    experiments = {e.name for e in client.search_experiments()}
    assert {f"{f}{kind}" for f in BOTH.families for kind in ("", "_params")} <= experiments


@pytest.mark.long
def test_a_folder_of_an_adapter_says_which_weights_it_adds_to(
    done: tuple[Home, runs.Outcome],
) -> None:
    home, _ = done
    for name, form in (("kronos", "published"), ("toto", "folded")):
        record = read_json(home.assets / f"{name}_adapter" / MONTH / "AAA.json")
        stored = read_json(home.models / record["folder"] / "base_weights.json")
        assert stored == {"base_weights": form}


@pytest.mark.long
def test_one_family_alone_is_retrained_with_the_same_result(
    done: tuple[Home, runs.Outcome],
) -> None:
    home, outcome = done
    alone = Retrain(families=("toto",), bases={"toto": "tiny"}, max_steps=2, search=BOTH.search)
    before = read_json(home.assets / "toto_adapter" / MONTH / "AAA.json")
    again = ran(home, "AAA", work=alone)["AAA"]
    assert again.failures == []
    assert again.record is not None
    after = read_json(home.assets / "toto_adapter" / MONTH / "AAA.json")
    assert (after["digest"], after["folder"]) == (before["digest"], before["folder"])
    assert again.params["toto"]["digest"] == outcome.params["toto"]["digest"]
    own = {f"toto.{variant}" for variant in ("zero_shot", "adapter", "chosen")}
    assert set(again.record["latency_s"]) == {"naive", "drift", "auto_ets", *own}


def test_a_validation_of_both_takes_the_families_a_stock_has(finished: Finished) -> None:
    store = ModelStore(finished.home.models)
    both = Validation(families=BOTH.families)
    assert both.on(store, MONTH, "AAA").families == ("kronos",)
    assert both.on(store, MONTH, "SHORT").families == ("kronos", "toto")  # then it is told
    named = Validation(families=("toto",), all_of_them=True)
    assert named.on(store, MONTH, "AAA").families == ("toto",)


@pytest.mark.parametrize(
    "path", [p for p in PACKAGE.rglob("*.py") if "models" not in p.parts], ids=lambda p: p.stem
)
def test_nothing_above_the_models_knows_a_family_by_name(path: Path) -> None:
    """Help texts and examples may name one; code may not."""
    import ast

    tree = ast.parse(path.read_text(encoding="utf-8"))
    shown = {
        id(node)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg in {"help", "description", "metavar"}
        for node in ast.walk(keyword.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            shown.add(id(node.value))  # docstrings
    named = re.compile(rf"\b({'|'.join(families())})\b", re.IGNORECASE)
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in shown
        and named.search(node.value)
    ]
    imported = [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and named.search(node.module or "")
    ]
    assert found + imported == []
