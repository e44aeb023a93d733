"""The guide's file tree: every file, true numbers, the guide's commands, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain_assets.evaluation.versions import Version
from retrain_assets.export.files import retraining_results
from retrain_assets.export.training import Trained, training_metrics
from retrain_assets.export.tree import export_tree
from retrain_assets.files import read_json
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import default_layout, family
from retrain_assets.training.splits import Split
from retrain_assets_tests.exported import (
    AUGUST,
    CHOSEN,
    JULY,
    KRONOS,
    TOTO,
    Made,
    contents,
)

PEFT = ("adapter_config.json", "adapter_model.safetensors", "base_weights.json")

# As they stand in the guide.
WORKING = """\
cat hyperparameter_validation_results.json | jq '.[] | select(.kronos.status=="success") \
| {stock, mae: .kronos.best_mae}'
"""
PARAMS = """\
cat hyperparameter_validation_results.json | jq '.[] | {
  stock: .stock,
  kronos_params: .kronos.best_params,
  toto_params: .toto.best_params
}'
"""
METRICS = """\
cat tototraining/stock_models/*/training_metrics.json | jq '{
  stock: .stock,
  final_val_loss: .final_val_loss,
  final_val_mae: .final_val_mae
}'
"""
RATES = """\
cat retraining_results.json | jq '{
  kronos_success_rate: ((.kronos_successes | length) / (.stocks_processed | length)),
  toto_success_rate: ((.toto_successes | length) / (.stocks_processed | length))
}'
"""
JQ = f"""\
#!{sys.executable}
import json, sys, jq
for found in jq.compile(sys.argv[1]).input_text(sys.stdin.read()):
    print(json.dumps(found, indent=2))
"""


@pytest.fixture(scope="module")
def tree(champions: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export, to be read only."""
    target = tmp_path_factory.mktemp("exported") / "tree"
    export_tree(target, home=champions.home)
    return target


@pytest.fixture(params=["binary", "bindings"])
def shell(
    request: pytest.FixtureRequest, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Runs a line of the guide in the exported tree, with jq itself and with its bindings."""
    if request.param == "binary" and shutil.which("jq") is None:
        pytest.skip("there is no jq on this machine")
    if request.param == "bindings":
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin" / "jq"
        script.write_text(JQ)
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")

    def run(command: str) -> list[Any]:
        strict = f"set -o pipefail; {command}"
        done = subprocess.run(
            ["bash", "-c", strict], cwd=tree, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        decoder, text, found = json.JSONDecoder(), done.stdout.strip(), []
        while text:
            value, end = decoder.raw_decode(text)
            found.append(value)
            text = text[end:].strip()
        return found

    return run


def test_the_tree_has_every_file_of_the_guide_and_no_other(champions: Made, tree: Path) -> None:
    wanted = {
        *("export.json", "retraining_results.json", "regression_analysis.json"),
        "hyperparameter_validation_results.json",
        *("hyperparams/kronos/AAA.json", "hyperparams/kronos/BBB.json"),
        "hyperparams/toto/AAA.json",
        *(f"{KRONOS}/{s}/adapters/{s}/{file}" for s in ("AAA", "BBB") for file in PEFT),
        *(f"{KRONOS}/{s}/checkpoints/training_config.json" for s in ("AAA", "BBB")),
        *(f"{KRONOS}/{s}/metrics/evaluation.json" for s in ("AAA", "BBB")),
        *(f"{KRONOS}/{s}/metrics/training.log" for s in ("AAA", "BBB")),
        *(f"{TOTO}/AAA/AAA_model/{file}" for file in PEFT),
        *(f"{TOTO}/AAA/training_{kind}.json" for kind in ("config", "metrics")),
        f"{TOTO}/AAA/training_output.txt",
        *(f"comparison_results/{s}_comparison.txt" for s in ("AAA", "BBB")),
        "comparison_results/comparison_summary_h16.json",
    }
    assert set(contents(tree)) == wanted
    assert read_json(tree / "export.json")["files"] == sorted(wanted)
    for name in ("regression_analysis.json", "hyperparameter_validation_results.json"):
        source = next(champions.home.results.glob(f"*/{AUGUST}/{name}"))
        assert (tree / name).read_bytes() == source.read_bytes()
    assert (tree / "comparison_results/BBB_comparison.txt").read_text() == "BBB in words\n"


def test_the_guides_lines_of_jq_print_what_they_promise(champions: Made, shell: Any) -> None:
    assert shell(WORKING) == [{"stock": "AAA", "mae": 2.5}]
    assert shell(PARAMS) == [
        {
            "stock": "AAA",
            "kronos_params": {"temperature": 0.7},
            "toto_params": {"temperature": 0.5},
        },
        {"stock": "BBB", "kronos_params": None, "toto_params": None},
    ]
    (metrics,) = shell(METRICS)
    july = champions.comparison("AAA", JULY)["losses"]["selection"]["toto.adapter"]
    assert metrics == {
        "stock": "AAA",
        "final_val_loss": champions.toto_july.metrics["validations"][-1]["loss"],
        "final_val_mae": pytest.approx(np.mean(july)),
    }
    # Of three stocks both families were asked for, and SHORT failed.
    assert shell(RATES) == [
        {
            "kronos_success_rate": pytest.approx(2 / 3),
            "toto_success_rate": pytest.approx(1 / 3),
        }
    ]


@pytest.mark.parametrize(
    ("log", "record"),
    [(f"{KRONOS}/AAA/metrics/training.log", "kronos"), (f"{TOTO}/AAA/training_output.txt", "july")],
)
def test_the_guides_tail_shows_a_line_an_epoch(
    champions: Made, tree: Path, log: str, record: str
) -> None:
    adapter = champions.kronos if record == "kronos" else champions.toto_july
    done = subprocess.run(
        ["tail", "-n", "100", log], cwd=tree, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    before = adapter.metrics["base_validation_loss"]
    assert lines[1] == f"epoch 0/3 step 0/20 val_loss={before:.6f}"
    pattern = r"epoch (\d)/3 step (\d+)/20 train_loss=([\d.-]+) val_loss=([\d.-]+)"
    epochs = [found for line in lines if (found := re.fullmatch(pattern, line))]
    assert [(found[1], found[2]) for found in epochs] == [("1", "16"), ("2", "20")]
    steps = [values["loss"] for values in adapter.metrics["step_losses"]]
    for found, part, number in zip(epochs, (steps[:16], steps[16:]), (1, 2), strict=True):
        held_out = adapter.metrics["validations"][number]["loss"]
        assert float(found[3]) == pytest.approx(np.mean(part), abs=1e-6)
        assert float(found[4]) == pytest.approx(held_out, abs=1e-6)
    best = adapter.metrics["best_epoch"]
    assert lines[-1].startswith(f"ended (max_steps): kept epoch {best} val_loss=")
    assert len(lines) == 5


def test_the_guides_live_snippet_finds_its_files(
    champions: Made, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    with open("hyperparams/toto/AAA.json") as f:  # noqa: PTH123  # as in the guide
        config = json.load(f)
    assert config["temperature"] == 0.5
    assert config["model_path"] == "tototraining/stock_models/AAA/AAA_model"
    model = family("toto").load("tiny", checkpoints=champions.home.checkpoints, device="cpu")
    assert model.fingerprint == config["fingerprint"]
    wrapped = lora.load(model.module, Path(config["model_path"]), base_weights=model.base_weights)
    assert weights_digest(lora.adapter_weights(wrapped)) == champions.toto_july.digest


def test_settings_stand_at_the_top_with_the_champions_own_errors(
    champions: Made, tree: Path
) -> None:
    found = read_json(tree / "hyperparams/kronos/AAA.json")
    record, compared = champions.live("AAA"), champions.comparison("AAA")
    version = Version.from_json(record["families"]["kronos"]["champion"])
    assert {name: found[name] for name in CHOSEN["kronos"]} == CHOSEN["kronos"]
    assert found["config"] == {"name": f"kronos adapter of {AUGUST}", **CHOSEN["kronos"]}
    assert found["model_path"] == f"{KRONOS}/AAA/adapters/AAA"
    assert (found["stock"], found["base"], found["month"]) == ("AAA", "tiny", AUGUST)
    assert (found["version"], found["fingerprint"]) == (
        version.id,
        champions.kronos.fingerprint,
    )
    assert found["context_length"] == champions.kronos.split["context"]
    assert found["prediction_length"] == champions.kronos.split["horizon"]
    assert found["in_production"] is True
    # It was promoted, so its errors are the candidate's.
    for section, segment in (("validation", "selection"), ("test", "test")):
        table = record["losses"][segment]
        own, close = np.array(table["kronos.candidate"]), np.array(table["origin_close"])
        naive = np.array(table["naive"])
        assert found[section] == {
            "price_mae": pytest.approx(own.mean()),
            "pct_return_mae": pytest.approx((own / close).mean()),
            "naive_price_mae": pytest.approx(naive.mean()),
            "skill": pytest.approx(1 - own.sum() / naive.sum()),
            "origins": len(own),
            "latency_s": compared["latency_s"]["kronos.chosen"],
        }


def test_a_champion_of_an_earlier_month_keeps_its_adapter_and_its_records(
    champions: Made, tree: Path
) -> None:
    settings = read_json(tree / "hyperparams/toto/AAA.json")
    table = champions.live("AAA")["losses"]["test"]
    assert (settings["month"], settings["adapter_month"]) == (AUGUST, JULY)
    assert settings["test"]["price_mae"] == pytest.approx(np.mean(table["toto.incumbent"]))
    assert settings["test"]["latency_s"] is None, "August's comparison has no column of it"
    assert settings["in_production"] is False
    metrics = read_json(tree / TOTO / "AAA/training_metrics.json")
    config = read_json(tree / TOTO / "AAA/training_config.json")
    for file in (metrics, config):
        assert (file["month"], file["adapter"]) == (JULY, champions.toto_july.digest)
        assert (file["champion"], file["in_production"]) == (True, False)
    stored = lora.read_weights(tree / TOTO / "AAA/AAA_model")
    assert weights_digest(stored) == champions.toto_july.digest != champions.toto.digest


def test_a_base_alone_has_no_model_and_its_candidate_is_shown_as_what_it_is(
    champions: Made, tree: Path
) -> None:
    settings = read_json(tree / "hyperparams/kronos/BBB.json")
    assert settings["model_path"] is None
    assert settings["adapter_month"] is None
    assert settings["temperature"] == family("kronos").default_settings["temperature"]
    assert settings["prediction_length"] == 16
    assert (
        settings["test"]["latency_s"]
        == champions.comparison("BBB")["latency_s"]["kronos.zero_shot"]
    )
    table = champions.live("BBB")["losses"]["selection"]
    assert settings["validation"]["price_mae"] == pytest.approx(np.mean(table["kronos.incumbent"]))
    metrics = read_json(tree / KRONOS / "BBB/metrics/evaluation.json")
    assert metrics["adapter"] == champions.kronos_b.digest
    assert (metrics["champion"], metrics["in_production"]) == (False, False)
    entry = read_json(tree / "export.json")["stocks"]["BBB"]
    assert entry["pointer"] == {"to": "naive", "version": "naive", "since": AUGUST}
    assert entry["families"]["kronos"]["model_path"] is None


def test_metrics_and_config_are_those_of_the_fit(champions: Made, tree: Path) -> None:
    metrics = read_json(tree / KRONOS / "AAA/metrics/evaluation.json")
    fit = champions.kronos.metrics
    assert metrics["val_losses"] == [v["loss"] for v in fit["validations"][1:]]
    assert metrics["base_val_loss"] == fit["validations"][0]["loss"]
    assert metrics["best_val_loss"] == metrics["min_val_loss"] == fit["validation_loss"]
    assert metrics["best_epoch"] == fit["best_epoch"]
    assert len(metrics["train_losses"]) == fit["epochs"]
    assert metrics["timestamp"] == "2023-09-01T06:00:00+00:00"
    table = champions.comparison("AAA")["losses"]
    assert metrics["final_val_mae"] == pytest.approx(np.mean(table["selection"]["kronos.adapter"]))
    assert (metrics["val_mae_segment"], metrics["val_mae_horizon"]) == ("selection", 7)
    assert metrics["val_mae_origins"] == 8
    assert metrics["val_mae_settings"] == family("kronos").default_settings
    tested = float(np.mean(table["test"]["kronos.adapter"]))
    assert metrics["aggregate"]["mae"] == pytest.approx(tested)
    assert metrics["per_symbol"][0]["symbol"] == "AAA"
    config = read_json(tree / KRONOS / "AAA/checkpoints/training_config.json")
    assert (config["lora_rank"], config["lora_alpha"], config["epochs"]) == (2, 4, 3)
    assert (config["max_steps"], config["warm_start"], config["rung"]) == (20, None, None)
    assert config["plan"] == champions.kronos.plan
    assert Split.from_json({k: v for k, v in config["split"].items() if k != "dates"}).n_bars == 330
    assert config["split"]["dates"] == champions.kronos.split_dates


def shown(champions: Made, compared: dict[str, Any] | None) -> dict[str, Any]:
    now = Trained(
        champions.kronos, champion=True, in_production=True, decided_at="", compared=compared
    )
    return training_metrics(now)


def test_an_adapter_of_a_refinement_is_scored_with_the_settings_it_was_compared_with(
    champions: Made,
) -> None:
    compared = champions.comparison("AAA")
    compared["candidates"]["kronos"]["name"] = "kronos.refined"
    rows = [r for r in compared["scores"] if r["candidate"] == "kronos.chosen"]
    compared["scores"] += [row | {"candidate": "kronos.refined", "mae": 9.0} for row in rows]
    metrics = shown(champions, compared)
    assert metrics["final_val_mae"] == 9.0
    assert metrics["val_mae_settings"] == CHOSEN["kronos"]


def test_an_error_that_no_comparison_measured_is_null(champions: Made) -> None:
    other = champions.comparison("AAA")
    other["candidates"]["kronos"]["version"]["adapter"]["digest"] = "of another adapter"
    alone = champions.comparison("AAA")
    del alone["candidates"]["kronos"]
    for compared in (None, other, alone):
        metrics = shown(champions, compared)
        assert (metrics["final_val_mae"], metrics["val_mae_segment"]) == (None, None)
        assert metrics["final_val_loss"] is not None


def test_the_index_lists_versions_and_what_was_left_out(champions: Made, tree: Path) -> None:
    index = read_json(tree / "export.json")
    assert index["month"] == AUGUST
    assert set(index["stocks"]) == {"AAA", "BBB"}
    versions = {n: s["version"] for n, s in index["stocks"]["AAA"]["families"].items()}
    champions = champions.live("AAA")["families"]
    assert versions == {n: Version.from_json(s["champion"]).id for n, s in champions.items()}
    assert index["stocks"]["AAA"]["pointer"]["version"] == versions["kronos"]
    (left,) = index["left_out"]
    assert left["what"] == "GONE"
    assert "no bars" in left["why"]


def test_nothing_in_the_tree_points_out_of_it(champions: Made, tree: Path) -> None:
    for name, content in contents(tree).items():
        assert str(champions.home.root).encode() not in content, name
        assert str(tree).encode() not in content, name
    for path in (tree / "hyperparams").rglob("*.json"):
        model = read_json(path)["model_path"]
        assert model is None or (tree / model / "adapter_model.safetensors").is_file()


def test_the_same_champions_give_the_same_bytes(
    champions: Made, tree: Path, tmp_path: Path
) -> None:
    files = export_tree(tmp_path / "again", home=champions.home)
    assert files == sorted((tmp_path / "again") / name for name in contents(tree))
    assert contents(tmp_path / "again") == contents(tree)
    assert export_tree(tmp_path / "again", home=champions.home) == files
    assert contents(tmp_path / "again") == contents(tree)


def test_retraining_counts_only_families_that_were_asked_for() -> None:
    records = [
        {"symbol": "BBB", "candidates": {"kronos": {}}},
        {"symbol": "AAA", "candidates": {"kronos": {}}},
    ]
    summaries = [{"results": {"AAA": {"error": None}, "CCC": {"error": "150 bars"}}}]
    found = retraining_results(AUGUST, records, summaries, ["kronos", "toto"])
    assert found == {
        "month": AUGUST,
        "stocks_processed": ["AAA", "BBB", "CCC"],
        "kronos_successes": ["AAA", "BBB"],
        "kronos_failures": ["CCC"],
        "toto_successes": [],
        "toto_failures": [],
        "errors": {"CCC": "150 bars"},
    }
    # A stock that failed this time is none of its older record's successes.
    summaries = [{"results": {"AAA": {"error": "the disk is full"}}}]
    again = retraining_results(AUGUST, records, summaries, ["kronos"])
    assert (again["kronos_successes"], again["kronos_failures"]) == (["BBB"], ["AAA"])


def test_a_family_without_names_of_its_own_gets_the_usual_folders() -> None:
    layout = default_layout("chronos").of("BRK.B")
    assert layout.model == "chronostraining/stock_models/BRK.B/BRK.B_model"
    assert layout.log == "chronostraining/stock_models/BRK.B/training_output.txt"
