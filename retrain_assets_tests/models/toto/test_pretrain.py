"""Pretraining: bundled bases are what their cards say; nothing after the cut-off is read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import family
from retrain_assets.models.toto import pretrain as module
from retrain_assets.models.toto.toto1_config import Toto1Config
from retrain_assets.training.trainer import FitConfig
from retrain_assets_tests.models.toto.toto1_cases import TINY as TINY_1
from retrain_assets_tests.models.toto.toto2_cases import TINY as TINY_2
from retrain_assets_tests.models.toto.toto2_cases import config_of
from retrain_assets_tests.tiny import random_walk

CHECKPOINTS = Path(__file__).parents[3] / "data" / "checkpoints"
BUNDLED = {"nano": "toto-nano", "nano-1": "toto-1-nano"}
BARS = {"AAA": random_walk(1330), "BBB": random_walk(1330, seed=5)}
UNTIL = pd.Timestamp(BARS["AAA"]["session"].iloc[1320])


@pytest.mark.parametrize("base", BUNDLED)
def test_the_bundled_base_is_the_one_its_card_describes(base: str) -> None:
    folder = CHECKPOINTS / BUNDLED[base]
    text = (folder / "README.md").read_text()
    facts = json.loads(text.split("```json")[1].split("```")[0])
    loaded = family("toto").load(base, checkpoints=CHECKPOINTS, device="cpu")
    assert loaded.fingerprint == facts["fingerprint"]
    assert facts["until"] == "2020-06-30"
    assert facts["symbols"] == ["AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA"]
    assert f"`retrain pretrain toto --size {base}`" in text
    assert (folder / "model.safetensors").stat().st_size < 3e6
    assert loaded.limits.max_context == module.CONTEXT + module.HORIZON


@pytest.fixture(params=[TINY_1, TINY_2], ids=["toto 1", "toto 2"])
def micro(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that trains in a second."""
    fit = FitConfig(epochs=1, effective_batch=4, learning_rate=1e-3, seed=1, max_steps=3)
    fields = request.param
    config = Toto1Config.from_json(fields, "x") if fields is TINY_1 else config_of(fields)
    monkeypatch.setitem(module.SIZES, "micro", module.Size("toto-micro", config, fit))


def pretrained(folder: Path, bars: dict[str, pd.DataFrame]) -> dict[str, object]:
    return module.pretrain("micro", bars, until=UNTIL, folder=folder)


@pytest.mark.usefixtures("micro")
def test_the_result_loads_as_a_base_and_is_the_same_again(tmp_path: Path) -> None:
    facts = pretrained(tmp_path / "one", BARS)
    listed = "toto: {my: {model: toto-micro, max_context: 512}}"
    (tmp_path / "one" / "bases.yaml").write_text(listed)
    loaded = family("toto").load("my", checkpoints=tmp_path / "one", device="cpu")
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


def test_windows_begin_at_every_phase_of_a_patch() -> None:
    for size in module.SIZES.values():
        assert size.config.patch_size % module.STRIDE != 0


def test_a_short_history_and_an_unknown_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="AAA has 300 bars"):
        module.pretrain("nano", {"AAA": random_walk(300)}, until=UNTIL, folder=tmp_path)
    with pytest.raises(BadInput, match="choose one of nano, nano-1"):
        module.pretrain("huge", BARS, until=UNTIL, folder=tmp_path)
