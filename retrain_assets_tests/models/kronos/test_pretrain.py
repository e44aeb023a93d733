"""Pretraining: the bundled base is what its card says, and nothing after the cut-off is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import family
from retrain_assets.models.kronos import pretrain as module
from retrain_assets.training.trainer import FitConfig
from retrain_assets_tests.tiny import NETWORK, TOKENIZER, random_walk

CHECKPOINTS = Path(__file__).parents[3] / "data" / "checkpoints"
PARTS = ("kronos-nano", "kronos-tokenizer-nano")
BARS = {"AAA": random_walk(720), "BBB": random_walk(720, seed=5)}
UNTIL = pd.Timestamp(BARS["AAA"]["session"].iloc[711])


def card_facts(folder: Path) -> dict[str, object]:
    text = (folder / "README.md").read_text()
    facts: dict[str, object] = json.loads(text.split("```json")[1].split("```")[0])
    return facts


@pytest.mark.parametrize("part", PARTS)
def test_the_bundled_base_is_the_one_its_card_describes(part: str) -> None:
    facts = card_facts(CHECKPOINTS / part)
    loaded = family("kronos").load("nano", checkpoints=CHECKPOINTS, device="cpu")
    assert loaded.fingerprint == facts["fingerprint"]
    assert facts["until"] == "2020-06-30"
    assert facts["symbols"] == ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
    assert (CHECKPOINTS / part / "model.safetensors").stat().st_size < 6e6


def test_the_bundled_network_has_the_documented_shape() -> None:
    config = json.loads((CHECKPOINTS / "kronos-nano" / "config.json").read_text())
    shape = {name: config[name] for name in ("n_layers", "d_model", "n_heads", "ff_dim")}
    assert shape == {"n_layers": 3, "d_model": 128, "n_heads": 4, "ff_dim": 256}
    assert (config["s1_bits"], config["s2_bits"]) == (10, 10)
    limits = family("kronos").limits("nano", checkpoints=CHECKPOINTS)
    assert limits.max_context == 512


@pytest.fixture
def micro(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that trains in a second."""
    fit = FitConfig(epochs=1, effective_batch=4, learning_rate=1e-3, seed=1, max_steps=3)
    size = module.Size(NETWORK, TOKENIZER, fit, replace(fit, seed=2))
    monkeypatch.setitem(module.SIZES, "micro", size)


def pretrained(folder: Path, bars: dict[str, pd.DataFrame]) -> dict[str, object]:
    return module.pretrain("micro", bars, until=UNTIL, folder=folder)


@pytest.mark.usefixtures("micro")
def test_the_result_loads_as_a_base_and_is_the_same_again(tmp_path: Path) -> None:
    facts = pretrained(tmp_path / "one", BARS)
    listed = (
        "kronos: {my: {model: kronos-micro, tokenizer: kronos-tokenizer-micro, max_context: 512}}"
    )
    (tmp_path / "one" / "bases.yaml").write_text(listed)
    loaded = family("kronos").load("my", checkpoints=tmp_path / "one", device="cpu")
    assert loaded.fingerprint == facts["fingerprint"]
    assert pretrained(tmp_path / "two", BARS)["fingerprint"] == facts["fingerprint"]


@pytest.mark.usefixtures("micro")
def test_no_bar_after_the_cut_off_is_read(tmp_path: Path) -> None:
    changed = {name: frame.copy() for name, frame in BARS.items()}
    for frame in changed.values():
        later = frame["session"] > UNTIL
        assert later.any()
        frame.loc[later, ["open", "high", "low", "close"]] *= 9
    first = pretrained(tmp_path / "one", BARS)
    assert pretrained(tmp_path / "two", changed)["fingerprint"] == first["fingerprint"]


def test_a_short_history_and_an_unknown_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="AAA has 300 bars"):
        module.pretrain("nano", {"AAA": random_walk(300)}, until=UNTIL, folder=tmp_path)
    with pytest.raises(BadInput, match="choose one of nano"):
        module.pretrain("huge", BARS, until=UNTIL, folder=tmp_path)
