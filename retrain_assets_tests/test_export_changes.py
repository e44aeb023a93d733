"""Exports when something is gone or altered: refused, left out or listed; the old one stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.export.tree import export_tree
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.models import lora
from retrain_assets_tests.exported import (
    AUGUST,
    JULY,
    KRONOS,
    TOTO,
    Made,
    contents,
    decision,
)


def replaced_weights(folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {name: torch.ones_like(v) for name, v in lora.read_weights(folder).items()}
    save_file(weights, folder / lora.WEIGHTS_FILE)


def other_alpha(folder: Path) -> None:
    config = read_json(folder / lora.CONFIG_FILE)
    write_json(folder / lora.CONFIG_FILE, config | {"lora_alpha": 64})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "is gone: retrain AAA"),
        (lambda folder: (folder / lora.WEIGHTS_FILE).unlink(), "is missing"),
        (replaced_weights, "is not the one that was decided on"),
        (other_alpha, r"rank and alpha \(2, 64\)"),
    ],
)
def test_a_champion_that_is_gone_or_altered_is_refused_and_the_old_export_stays(
    own_champions: Made, tmp_path: Path, damage: Any, message: str
) -> None:
    target = tmp_path / "out" / "tree"
    export_tree(target, home=own_champions.home)
    before = contents(target)
    damage(own_champions.home.models / own_champions.toto_july.folder)
    with pytest.raises(CheckpointError, match=message):
        export_tree(target, home=own_champions.home)
    assert contents(target) == before
    with pytest.raises(CheckpointError, match=message):
        export_tree(tmp_path / "out" / "new", home=own_champions.home)
    assert {p.name for p in target.parent.iterdir() if not p.name.endswith(".lock")} == {"tree"}


def test_a_candidate_that_is_gone_is_left_out(own_champions: Made, tmp_path: Path) -> None:
    shutil.rmtree(own_champions.home.models / own_champions.kronos_b.folder)
    export_tree(tmp_path / "tree", home=own_champions.home)
    assert not (tmp_path / "tree" / KRONOS / "BBB").exists()
    assert (tmp_path / "tree" / "hyperparams/kronos/BBB.json").is_file()
    left = read_json(tmp_path / "tree" / "export.json")["left_out"]
    assert f"{KRONOS}/BBB/adapters/BBB" in {entry["what"] for entry in left}


def test_a_base_in_production_puts_no_adapter_there(own_champions: Made, tmp_path: Path) -> None:
    record = own_champions.live("BBB")
    base = record["families"]["kronos"]["champion"]
    own_champions.decide(
        record | {"pointer": record["pointer"] | {"to": "kronos", "version": base}}
    )
    export_tree(tmp_path / "tree", home=own_champions.home)
    settings = read_json(tmp_path / "tree" / "hyperparams/kronos/BBB.json")
    metrics = read_json(tmp_path / "tree" / KRONOS / "BBB/metrics/evaluation.json")
    assert (settings["in_production"], metrics["in_production"]) == (True, False)


def test_an_export_follows_a_change_of_champions(own_champions: Made, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    export_tree(target, home=own_champions.home)
    record = own_champions.live("AAA")
    del record["families"]["toto"]
    own_champions.decide(record)
    export_tree(target, home=own_champions.home)
    assert not (target / TOTO).exists()
    assert not (target / "hyperparams/toto").exists()


def test_a_month_that_decided_nothing_is_told_by_its_comparison(
    own_champions: Made, tmp_path: Path
) -> None:
    record = own_champions.live("BBB")
    record["families"]["kronos"] |= {"candidate": None, "decision": decision(False)}
    own_champions.decide(record | {"losses": {}, "rolled_back_to": JULY})
    export_tree(tmp_path / "tree", home=own_champions.home)
    settings = read_json(tmp_path / "tree" / "hyperparams/kronos/BBB.json")
    table = own_champions.comparison("BBB")["losses"]["test"]
    assert settings["test"]["price_mae"] == pytest.approx(np.mean(table["kronos.zero_shot"]))
    metrics = read_json(tmp_path / "tree" / KRONOS / "BBB/metrics/evaluation.json")
    assert metrics["adapter"] == own_champions.kronos_b.digest


def test_reports_that_are_missing_are_listed_and_nothing_is_made_up(
    own_champions: Made, tmp_path: Path
) -> None:
    shutil.rmtree(own_champions.home.results)
    export_tree(tmp_path / "tree", home=own_champions.home)
    left = {e["what"]: e["why"] for e in read_json(tmp_path / "tree" / "export.json")["left_out"]}
    for name in ("regression_analysis.json", "comparison_results/AAA_comparison.txt"):
        assert not (tmp_path / "tree" / name).exists()
        assert "materialize" in left[name]
    assert "latency of AAA" in left
    assert read_json(tmp_path / "tree" / "hyperparameter_validation_results.json") == []
    settings = read_json(tmp_path / "tree" / "hyperparams/kronos/AAA.json")
    assert settings["validation"]["price_mae"] > 0
    assert (settings["validation"]["latency_s"], settings["prediction_length"]) == (None, 16)


def test_a_comparison_made_anew_on_other_origins_is_not_taken_for_the_old_one(
    own_champions: Made, tmp_path: Path
) -> None:
    path = own_champions.home.results / "comparison_results" / AUGUST / "AAA_comparison.json"
    compared = read_json(path)
    compared["losses"]["test"]["cutoff"][0] = "2023-01-02"
    write_json(path, compared)
    export_tree(tmp_path / "tree", home=own_champions.home)
    settings = read_json(tmp_path / "tree" / "hyperparams/kronos/AAA.json")
    assert settings["test"]["latency_s"] is None


def test_a_family_that_is_no_longer_there_is_left_out(own_champions: Made, tmp_path: Path) -> None:
    record = own_champions.live("AAA")
    record["families"]["chronos"] = record["families"]["toto"]
    own_champions.decide(record)
    export_tree(tmp_path / "tree", home=own_champions.home)
    index = read_json(tmp_path / "tree" / "export.json")
    assert set(index["stocks"]["AAA"]["families"]) == {"kronos", "toto"}
    assert "chronos of AAA" in {entry["what"] for entry in index["left_out"]}


def test_with_nothing_in_production_it_is_said_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing is in production .*: run `retrain run"):
        export_tree(tmp_path / "tree", home=Home(tmp_path / "data"))
    assert not (tmp_path / "tree").exists()


def test_a_month_without_champions_is_refused(champions: Made, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"decided on in {JULY}: .* one of {AUGUST}"):
        export_tree(tmp_path / "tree", home=champions.home, month=JULY)
    export_tree(tmp_path / "tree", home=champions.home, month=AUGUST)


def test_a_folder_with_other_files_is_never_replaced(champions: Made, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds notes\.txt, which is not of an export"):
        export_tree(mine, home=champions.home)
    (mine / "notes.txt").unlink()
    export_tree(mine, home=champions.home)  # an empty folder is taken
    (mine / "hyperparams" / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds hyperparams/notes\.txt"):
        export_tree(mine, home=champions.home)
    assert (mine / "hyperparams" / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="is a file"):
        export_tree(tmp_path / "file", home=champions.home)
