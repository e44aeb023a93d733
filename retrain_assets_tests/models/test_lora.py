"""Adapters: what is saved comes back to the bit, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from retrain_assets.errors import CheckpointError
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest

SETTINGS = lora.LoraSettings(rank=4, alpha=8, dropout=0.05, targets=("q_proj", "w1"))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.w1, self.out = nn.Linear(6, 6), nn.Linear(6, 10), nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.w1(self.q_proj(x))))


def base() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Base().requires_grad_(False)


def trained() -> nn.Module:
    """An adapter whose B matrices are not zero, so that it changes the output."""
    wrapped = lora.attach(base(), SETTINGS, seed=1)
    draw = torch.Generator().manual_seed(2)
    weights = {
        n: torch.randn(v.shape, generator=draw) for n, v in lora.adapter_weights(wrapped).items()
    }
    lora.set_adapter_weights(wrapped, weights)
    return wrapped.eval()


def stored(folder: Path) -> nn.Module:
    wrapped = trained()
    folder.mkdir(exist_ok=True)
    lora.save(wrapped, lora.adapter_weights(wrapped), folder)
    return wrapped


X = torch.linspace(-1, 1, 18).view(3, 6)


def test_a_fresh_adapter_computes_what_the_base_computes() -> None:
    wrapped = lora.attach(base(), SETTINGS, seed=1).eval()
    assert torch.equal(wrapped(X), base()(X))
    trainable = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)


def test_the_start_depends_on_the_seed_and_not_on_the_process() -> None:
    torch.manual_seed(7)
    first = lora.adapter_weights(lora.attach(base(), SETTINGS, seed=1))
    state = torch.get_rng_state()
    torch.manual_seed(8)
    second = lora.adapter_weights(lora.attach(base(), SETTINGS, seed=1))
    other = lora.adapter_weights(lora.attach(base(), SETTINGS, seed=2))
    assert weights_digest(first) == weights_digest(second) != weights_digest(other)
    torch.manual_seed(7)
    assert torch.equal(state, torch.get_rng_state())


def test_save_and_load_give_the_same_bits(tmp_path: Path) -> None:
    wrapped = stored(tmp_path / "a")
    again = lora.load(base(), tmp_path / "a")
    assert torch.equal(wrapped(X), again(X))
    assert not torch.equal(again(X), base()(X))
    assert not any(p.requires_grad for p in again.parameters())


def test_equal_adapters_give_equal_files(tmp_path: Path) -> None:
    stored(tmp_path / "a"), stored(tmp_path / "b")
    for name in (lora.CONFIG_FILE, lora.WEIGHTS_FILE, lora.FORM_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_folder_is_pefts_own_layout(tmp_path: Path) -> None:
    from peft import PeftModel

    wrapped = stored(tmp_path / "a")
    theirs = PeftModel.from_pretrained(base(), str(tmp_path / "a")).eval()
    assert torch.equal(wrapped(X), theirs(X))


@pytest.mark.parametrize("name", [lora.CONFIG_FILE, lora.WEIGHTS_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    stored(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        lora.load(base(), tmp_path / "a")


def test_a_pickle_beside_the_config_is_not_taken_instead(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    (tmp_path / "a" / lora.WEIGHTS_FILE).rename(tmp_path / "a" / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="is missing"):
        lora.load(base(), tmp_path / "a")


def edit_weights(folder: Path, change: str) -> None:
    weights = load_file(folder / lora.WEIGHTS_FILE)
    first = sorted(weights)[0]
    value = weights.pop(first)
    if change == "surplus":
        weights[first] = value
        weights["extra"] = value.clone()
    elif change == "shape":
        weights[first] = value[:, :-1].contiguous()
    save_file(weights, folder / lora.WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("change", "words"), [("lacking", "lacks"), ("surplus", "extra"), ("shape", "has shape")]
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: str, words: str) -> None:
    stored(tmp_path / "a")
    edit_weights(tmp_path / "a", change)
    with pytest.raises(CheckpointError, match=words):
        lora.load(base(), tmp_path / "a")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    stored(tmp_path / "a")
    whole = (tmp_path / "a" / lora.WEIGHTS_FILE).read_bytes()
    (tmp_path / "a" / lora.WEIGHTS_FILE).write_bytes(whole[:40])
    with pytest.raises(CheckpointError, match="not readable"):
        lora.load(base(), tmp_path / "a")
    (tmp_path / "a" / lora.CONFIG_FILE).write_text(json.dumps({"r": "four"}))
    with pytest.raises(CheckpointError, match="not a LoRA config"):
        lora.load(base(), tmp_path / "a")


def warm(rank: int) -> torch.Tensor:
    """Output of an adapter of another rank that starts where `trained` ended."""
    settings = lora.LoraSettings(rank, 2 * rank, 0.0, SETTINGS.targets)
    wrapped = lora.attach(base(), settings, seed=9)
    lora.set_adapter_weights(wrapped, lora.warm_weights(lora.adapter_weights(trained()), wrapped))
    return wrapped.eval()(X)


@pytest.mark.parametrize("rank", [4, 5])
def test_a_warm_start_at_the_same_or_a_larger_rank_keeps_the_function(rank: int) -> None:
    torch.testing.assert_close(warm(rank), trained()(X), rtol=1e-5, atol=1e-6)


def test_a_warm_start_at_a_smaller_rank_stays_nearer_than_the_base() -> None:
    distance = (warm(3) - trained()(X)).norm()
    assert 0 < distance < 0.8 * (base()(X) - trained()(X)).norm()


def test_a_warm_start_from_other_layers_is_refused() -> None:
    other = lora.attach(base(), lora.LoraSettings(4, 8, 0.0, ("w1",)), seed=1)
    with pytest.raises(CheckpointError, match="other layers"):
        lora.warm_weights(lora.adapter_weights(trained()), other)


def test_an_adapter_of_weights_in_another_form_is_refused(tmp_path: Path) -> None:
    wrapped = trained()
    lora.save(wrapped, lora.adapter_weights(wrapped), tmp_path, base_weights="folded")
    with pytest.raises(CheckpointError, match="adds to the folded weights"):
        lora.load(base(), tmp_path)
    again = lora.load(base(), tmp_path, base_weights="folded")
    assert torch.equal(again(X), wrapped(X))
    stored(tmp_path)
    with pytest.raises(CheckpointError, match="published weights of its base"):
        lora.load(base(), tmp_path, base_weights="folded")
