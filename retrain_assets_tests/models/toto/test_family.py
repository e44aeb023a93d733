"""Toto behind the protocol of a family."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.models import checkpoint_folders
from retrain_assets.models.forecaster import ModelLimits, base_for, families, family
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.family import TARGETS_1, TARGETS_2
from retrain_assets_tests.models.toto.cases import GENERATIONS, model, write_bases
from retrain_assets_tests.tiny import random_walk, windows_of

CHECKPOINTS = Path(__file__).parents[3] / "data" / "checkpoints"


def test_the_registry_finds_it_beside_kronos() -> None:
    assert {"kronos", "toto"} <= set(families())
    assert family("toto") is FAMILY


def test_importing_it_imports_no_torch_and_no_scipy() -> None:
    heavy = "sys.exit(bool({'torch', 'scipy'} & {*sys.modules}))"
    code = f"import retrain_assets.models.toto, sys; {heavy}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limits_come_without_weights(tmp_path: Path) -> None:
    assert FAMILY.limits("22m", checkpoints=tmp_path) == ModelLimits(4096, 32)
    assert FAMILY.limits("open-base-1.0", checkpoints=tmp_path) == ModelLimits(4096, 64)
    assert FAMILY.limits("nano", checkpoints=CHECKPOINTS) == ModelLimits(1088, 32)
    assert FAMILY.limits("nano-1", checkpoints=CHECKPOINTS) == ModelLimits(1088, 64)
    name = write_bases(tmp_path)[2]
    for file in (tmp_path / name).glob("*.safetensors"):
        file.unlink()
    assert FAMILY.limits(name, checkpoints=tmp_path) == ModelLimits(512, 8)
    with pytest.raises(BadInput, match="no Toto base"):
        FAMILY.limits("huge", checkpoints=tmp_path)


def test_a_base_is_named_published_or_the_bundled_one() -> None:
    assert base_for(FAMILY, None, device="cuda:0") == "nano"
    assert base_for(FAMILY, "published", device="cpu") == "22m"
    assert base_for(FAMILY, "published", device="cuda:1") == "313m"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_listed_base_is_loaded_and_forecasts(tmp_path: Path, generation: int) -> None:
    name = write_bases(tmp_path)[generation]
    loaded = FAMILY.load(name, checkpoints=tmp_path, device="cpu")
    assert (loaded.family, loaded.base, loaded.adapter) == ("toto", name, None)
    assert loaded.base_weights == ("published" if generation == 1 else "folded")
    again = FAMILY.load(name, checkpoints=tmp_path, device="cpu")
    assert loaded.fingerprint == again.fingerprint
    windows = windows_of(random_walk(60), context=40, steps=5, count=1)
    forecaster = FAMILY.forecaster(loaded, name="zero-shot")
    assert forecaster.name == "zero-shot"
    assert forecaster.forecast(windows, [FAMILY.default_settings], seed=0).mean.shape == (1, 1, 5)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_lora_targets_are_the_linear_layers_of_every_block(generation: int) -> None:
    loaded = model(generation)
    targets = FAMILY.lora_targets(loaded)
    assert targets == (TARGETS_1 if generation == 1 else TARGETS_2)
    within = [
        name
        for name, module in loaded.module.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    ]
    assert within
    assert all(name.endswith(tuple(f".{target}" for target in targets)) for name in within)


def test_a_hub_that_cannot_be_reached_is_told_with_id_cache_and_offline_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError) as refused:
        FAMILY.load("22m", checkpoints=tmp_path, device="cpu")
    message = str(refused.value)
    for part in ("Datadog/Toto-2.0-22m", "685e4ae3", "cache folder", "bundled base nano"):
        assert part in message
    assert "hf download" in message


def test_a_hub_config_is_read_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = checkpoint_folders.config_file("a/b", "0" * 40, checkpoints=tmp_path)
    assert found == tmp_path / "config.json"
    assert asked == [["config.json"]]
