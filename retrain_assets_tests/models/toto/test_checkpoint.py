"""Toto's checkpoint folders: the generation is told, and nothing but the right weights load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrain_assets.errors import CheckpointError
from retrain_assets.models import lora
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.checkpoint import load_network, save_checkpoint
from retrain_assets.models.toto.toto1 import Toto1Network
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets_tests.models.toto.cases import GENERATIONS, tiny, write_bases

both = pytest.mark.parametrize("generation", GENERATIONS)


@pytest.fixture
def folder(tmp_path: Path, generation: int) -> Path:
    save_checkpoint(tmp_path / "net", tiny(generation))
    return tmp_path / "net"


@both
def test_what_is_saved_comes_back_as_the_same_generation(folder: Path, generation: int) -> None:
    loaded, stored = load_network(folder), tiny(generation)
    assert isinstance(loaded, Toto1Network if generation == 1 else Toto2Network)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.state_dict().keys() == stored.state_dict().keys()
    for name, weight in stored.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight, rtol=3e-7, atol=0)


@both
def test_the_file_holds_the_published_names_and_form(folder: Path, generation: int) -> None:
    weights = load_file(folder / "model.safetensors")
    if generation == 1:
        assert all(name.startswith("model.") for name in weights)
        return
    name = "transformer.layers.0.ffn.fc1.weight"
    ours = tiny(2).state_dict()[name]
    torch.testing.assert_close(weights[name], ours * ours.shape[1] ** 0.5)


@both
def test_shards_load_like_one_file(folder: Path, generation: int) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    whole = load_network(folder)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file)
    table = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (folder / "model.safetensors").unlink()
    for name, weight in load_network(folder).state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name])


@both
def test_a_missing_and_a_surplus_weight_are_named(folder: Path, generation: int) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = sorted(weights)[3]
    save_file({n: w for n, w in weights.items() if n != lost}, file)
    with pytest.raises(CheckpointError, match=f"lacks weight '{lost.removeprefix('model.')}'"):
        load_network(folder)
    save_file(weights | {"odd": torch.ones(1)}, file)
    with pytest.raises(CheckpointError, match="has the unknown weight 'odd'"):
        load_network(folder)


@both
def test_a_config_of_another_shape_is_named(folder: Path, generation: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    field = "mlp_hidden_dim" if generation == 1 else "d_ff"
    (folder / "config.json").write_text(json.dumps(config | {field: config[field] * 2}))
    with pytest.raises(CheckpointError, match="has shape"):
        load_network(folder)


@pytest.mark.parametrize(
    "content", ['{"hidden_size": 8}', '{"embed_dim": 8, "d_model": 8}', "[]", "{"]
)
def test_a_folder_of_neither_generation_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_network(tmp_path)
    if content.startswith('{"'):
        with pytest.raises(CheckpointError, match="neither generation of Toto"):
            load_network(tmp_path)


def test_an_adapter_of_unfolded_weights_is_refused(tmp_path: Path) -> None:
    """As peft writes one that was trained on upstream's own modules."""
    names = write_bases(tmp_path)
    loaded = FAMILY.load(names[2], checkpoints=tmp_path, device="cpu")
    settings = lora.LoraSettings(4, 8, 0.0, FAMILY.lora_targets(loaded))
    wrapped = lora.attach(loaded.module, settings, seed=0)
    wrapped.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]  # peft's own
    again = FAMILY.load(names[2], checkpoints=tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match="published weights of its base"):
        lora.load(again.module, tmp_path / "theirs", base_weights=again.base_weights)
    lora.save(wrapped, lora.adapter_weights(wrapped), tmp_path / "theirs", base_weights="folded")
    lora.load(again.module, tmp_path / "theirs", base_weights=again.base_weights)
