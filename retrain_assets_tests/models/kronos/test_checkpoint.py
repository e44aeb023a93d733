import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from retrain_assets.errors import CheckpointError
from retrain_assets.models.kronos.bases import Base
from retrain_assets.models.kronos.checkpoint import (
    fingerprint,
    load_base,
    load_network,
    load_tokenizer,
    local_folder,
    save_checkpoint,
)
from retrain_assets_tests.full_disk import disk_that_takes
from retrain_assets_tests.models.kronos.cases import (
    TINY_NETWORK,
    TINY_TOKENIZER,
    build_network,
    build_tokenizer,
    random_inputs,
    upstream,
)

BASE = Base(model="net", tokenizer="tok", max_context=64)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "net", build_network(TINY_NETWORK))
    save_checkpoint(tmp_path / "tok", build_tokenizer(TINY_TOKENIZER), card="# Tiny\n")
    return tmp_path


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    weights = load_file(folder / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del weights[name.replace("__", ".")]
        else:
            weights[name.replace("__", ".")] = value
    save_file(weights, folder / "model.safetensors")


def edit_config(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | changes))


def test_a_saved_base_is_loaded_to_the_bit(checkpoints: Path) -> None:
    network, tokenizer = load_base(BASE, checkpoints=checkpoints)
    saved = build_network(TINY_NETWORK)
    inputs = random_inputs(TINY_NETWORK, batch=2, length=7)
    for one, two in zip(network(*inputs, inputs[0]), saved(*inputs, inputs[0]), strict=True):
        assert torch.equal(one, two)
    assert fingerprint(network=network, tokenizer=tokenizer) == fingerprint(
        tokenizer=build_tokenizer(TINY_TOKENIZER), network=saved
    )
    for module in (network, tokenizer):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    assert (checkpoints / "tok" / "README.md").read_text() == "# Tiny\n"


def test_loading_draws_no_random_numbers(checkpoints: Path) -> None:
    before = torch.random.get_rng_state()
    load_base(BASE, checkpoints=checkpoints)
    assert torch.equal(before, torch.random.get_rng_state())


def test_upstream_loads_what_we_save_and_we_what_it_saves(tmp_path: Path) -> None:
    package = upstream()
    save_checkpoint(tmp_path / "ours", build_network(TINY_NETWORK))
    theirs = package.Kronos.from_pretrained(tmp_path / "ours", strict=True)
    for name, weight in build_network(TINY_NETWORK).state_dict().items():
        assert torch.equal(theirs.state_dict()[name], weight)
    tokenizer = package.KronosTokenizer(**TINY_TOKENIZER)
    tokenizer.save_pretrained(tmp_path / "theirs")
    loaded = load_tokenizer(tmp_path / "theirs")
    for name, weight in tokenizer.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(checkpoints: Path, name: str) -> None:
    (checkpoints / "net" / name).unlink()
    with pytest.raises(CheckpointError, match=rf"net/{name} is missing"):
        load_base(BASE, checkpoints=checkpoints)


def test_a_missing_weight_is_named(checkpoints: Path) -> None:
    edit_weights(checkpoints / "net", transformer__1__ffn__w2__weight=None, norm__weight=None)
    with pytest.raises(
        CheckpointError, match=r"net/model.safetensors lacks weight 'norm.weight' and 1 more"
    ):
        load_network(checkpoints / "net")


def test_a_surplus_weight_is_named(checkpoints: Path) -> None:
    edit_weights(checkpoints / "net", head__proj_s3__weight=torch.zeros(3))
    with pytest.raises(CheckpointError, match=r"unknown weight 'head.proj_s3.weight'"):
        load_network(checkpoints / "net")


def test_a_weight_of_another_shape_is_named(checkpoints: Path) -> None:
    edit_weights(checkpoints / "net", norm__weight=torch.zeros(15))
    with pytest.raises(
        CheckpointError, match=r"'norm.weight' has shape \(15,\), but .*config.json demands \(16,\)"
    ):
        load_network(checkpoints / "net")


def test_a_weight_of_another_type_is_named(checkpoints: Path) -> None:
    edit_weights(checkpoints / "net", norm__weight=torch.zeros(16, dtype=torch.float16))
    with pytest.raises(CheckpointError, match=r"'norm.weight' has type torch.float16"):
        load_network(checkpoints / "net")


def test_a_weight_that_is_no_number_is_named(checkpoints: Path) -> None:
    edit_weights(checkpoints / "net", norm__weight=torch.full((16,), torch.nan))
    with pytest.raises(CheckpointError, match=r"'norm.weight' holds values that are not finite"):
        load_network(checkpoints / "net")


def test_a_file_cut_short_is_refused(checkpoints: Path) -> None:
    path = checkpoints / "net" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        load_network(checkpoints / "net")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_layers": 3}, "lacks weight 'transformer.2."),
        ({"n_layers": 1}, "unknown weight 'transformer.1."),
        ({"ff_dim": 25}, "w1.weight' has shape"),
        ({"n_heads": 4}, "inv_freq' has shape"),
        ({"learn_te": False}, "lacks weight 'time_emb.day_embed.emb.weight'"),
        ({"s1_bits": 6}, "emb_s1.weight' has shape"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    checkpoints: Path, change: dict[str, Any], named: str
) -> None:
    edit_config(checkpoints / "net", **change)
    with pytest.raises(CheckpointError, match=named):
        load_network(checkpoints / "net")


def test_another_group_size_shows_in_its_buffer(checkpoints: Path) -> None:
    edit_config(checkpoints / "tok", group_size=9)
    with pytest.raises(CheckpointError, match=r"group_basis' has shape \(3,\)"):
        load_tokenizer(checkpoints / "tok")


def test_a_foreign_folder_is_refused(checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="is this a Kronos network"):
        load_network(checkpoints / "tok")


def test_a_tokenizer_of_other_tokens_is_refused(checkpoints: Path) -> None:
    fields = TINY_TOKENIZER | {"s1_bits": 4, "s2_bits": 5}
    save_checkpoint(checkpoints / "tok", build_tokenizer(fields))
    with pytest.raises(CheckpointError, match=r"s1_bits 5, but .*tok/config.json has 4"):
        load_base(BASE, checkpoints=checkpoints)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'a/b' is a hub id, pin it"):
        local_folder("a/b", None, checkpoints=tmp_path)


def test_an_unreachable_hub_is_answered_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"a/b at 0+ cannot be downloaded.*hf download a/b"):
        local_folder("a/b", "0" * 40, checkpoints=tmp_path)


def test_the_fingerprint_is_of_names_shapes_types_and_values() -> None:
    def of(**weights: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, value in weights.items():
            module.register_buffer(name, value)
        return fingerprint(part=module)

    same = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3])}
    digests = [
        of(**same),
        of(a=same["b"], b=same["a"]),
        of(a=same["a"][None], b=same["b"]),
        of(a=same["a"].half(), b=same["b"]),
        of(a=-same["a"], b=same["b"]),
    ]
    assert len(set(digests)) == 5
    assert of(b=same["b"], a=same["a"]) == digests[0]
    strided = torch.tensor([[1.0, 9.0], [2.0, 9.0]])[:, 0]
    assert of(a=strided, b=same["b"]) == digests[0]


def test_a_full_disk_leaves_the_old_checkpoint(checkpoints: Path) -> None:
    path = checkpoints / "net" / "model.safetensors"
    before = path.read_bytes()
    with disk_that_takes(4096), pytest.raises((OSError, SafetensorError)):
        save_checkpoint(checkpoints / "net", build_network(TINY_NETWORK, seed=1))
    assert path.read_bytes() == before
    assert [p.name for p in checkpoints.iterdir() if p.name.startswith(".")] == []
