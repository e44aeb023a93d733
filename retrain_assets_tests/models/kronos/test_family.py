import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import base_for, family
from retrain_assets.models.kronos import FAMILY
from retrain_assets.models.kronos.checkpoint import save_checkpoint
from retrain_assets.models.kronos.family import LORA_TARGETS
from retrain_assets_tests.models.kronos.cases import (
    TINY_NETWORK,
    TINY_TOKENIZER,
    build_network,
    build_tokenizer,
    random_bars,
)
from retrain_assets_tests.tiny import windows_of


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "net", build_network(TINY_NETWORK))
    save_checkpoint(tmp_path / "tok", build_tokenizer(TINY_TOKENIZER))
    (tmp_path / "bases.yaml").write_text(
        "kronos:\n  tiny: {model: net, tokenizer: tok, max_context: 64}\n"
    )
    return tmp_path


def test_the_registry_finds_it() -> None:
    assert family("kronos") is FAMILY


def test_importing_it_does_not_import_torch() -> None:
    code = "import retrain_assets.models.kronos, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_limits_come_without_weights(tmp_path: Path) -> None:
    assert FAMILY.limits("mini", checkpoints=tmp_path).max_context == 2048
    assert FAMILY.limits("nano", checkpoints=tmp_path).patch == 1
    with pytest.raises(BadInput, match="no Kronos base"):
        FAMILY.limits("huge", checkpoints=tmp_path)


def test_a_listed_base_is_loaded_and_forecasts(checkpoints: Path) -> None:
    model = FAMILY.load("tiny", checkpoints=checkpoints, device="cpu")
    assert (model.family, model.base, model.adapter) == ("kronos", "tiny", None)
    assert model.limits.max_context == 64
    assert model.device == torch.device("cpu")
    again = FAMILY.load("tiny", checkpoints=checkpoints, device="cpu")
    assert model.fingerprint == again.fingerprint
    windows = windows_of(random_bars(60), context=40, steps=5, count=1)
    forecaster = FAMILY.forecaster(model, name="zero-shot")
    assert forecaster.name == "zero-shot"
    got = forecaster.forecast(windows, [FAMILY.default_settings], seed=0)
    assert got.mean.shape == (1, 1, 5)


def test_the_fingerprint_covers_network_and_tokenizer(checkpoints: Path) -> None:
    first = FAMILY.load("tiny", checkpoints=checkpoints, device="cpu").fingerprint
    save_checkpoint(checkpoints / "tok", build_tokenizer(TINY_TOKENIZER, seed=9))
    second = FAMILY.load("tiny", checkpoints=checkpoints, device="cpu").fingerprint
    save_checkpoint(checkpoints / "net", build_network(TINY_NETWORK, seed=9))
    third = FAMILY.load("tiny", checkpoints=checkpoints, device="cpu").fingerprint
    assert len({first, second, third}) == 3


def test_a_base_is_named_published_or_the_bundled_one() -> None:
    assert base_for(FAMILY, None, device="cpu") == "nano"
    assert base_for(FAMILY, "base", device="cpu") == "base"
    assert base_for(FAMILY, "published", device="cpu") == "mini"
    assert base_for(FAMILY, "published", device="cuda:1") == "small"


def test_lora_targets_are_linear_layers_of_every_block() -> None:
    linear = {
        name.rpartition(".")[2]
        for name, module in build_network(TINY_NETWORK).named_modules()
        if isinstance(module, torch.nn.Linear) and (".self_attn." in name or ".ffn." in name)
    }
    assert set(LORA_TARGETS) == linear
