import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from retrain_assets.errors import CheckpointError
from retrain_assets.models.checkpoint_folders import check_weights, stored_weights, write_folder
from retrain_assets.models.toto.folding import fold, unfold
from retrain_assets.models.toto.toto2 import Toto2Network
from retrain_assets.models.toto.toto2_config import Toto2Config
from retrain_assets_tests.models.toto.toto2_cases import (
    SHAPES,
    TINY,
    network_of,
    published_model,
    published_weights,
    toto2_package,
    window,
)

HEAD = "output_head.param_projection.proj"
SHAPE = TINY | SHAPES["norm weights"] | SHAPES["qk_norm"] | {"mlp_bias": True}


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return toto2_package()


@pytest.fixture
def model(package: ModuleType) -> Any:
    return published_model(package, SHAPE, published_weights(SHAPE))


def loaded(folder: Path) -> Toto2Network:
    """A published folder the way a loader reads it: strictly, then folded."""
    network = Toto2Network(Toto2Config.read(folder / "config.json"))
    weights, source = stored_weights(folder)
    check_weights(network.state_dict(), weights, source)
    network.load_state_dict(fold(weights), strict=True)
    return network.eval().requires_grad_(False)


def forecast_of(model: Any) -> Tensor:
    values, observed, groups = window("missing")
    inputs = {"target": values, "target_mask": observed, "series_ids": groups}
    quantiles: Tensor = model.forecast(inputs, 20, has_missing_values=True)
    return quantiles.movedim(0, -1)


def test_linear_layers_alone_are_multiplied() -> None:
    weights = published_weights(SHAPE)
    folded = fold(weights)
    assert list(folded) == list(weights)
    same = {name for name, weight in folded.items() if torch.equal(weight, weights[name])}
    assert same == {n for n in weights if "norm" in n or "tau" in n or "per_dim_scale" in n}


@pytest.mark.parametrize(
    ("layer", "factor"),
    [
        ("transformer.layers.1.attn.in_proj", 32**-0.5),
        ("transformer.layers.1.attn.out_proj", 48**-0.5),
        ("transformer.layers.2.ffn.fc2", 44**-0.5),
        ("patch_proj.linear2", 128**-0.5),
        ("patch_proj.skip_proj", 16**-0.5),
        (f"{HEAD}.linear1", 32**-0.5),
        (f"{HEAD}.linear2", 1 / 128),
        (f"{HEAD}.skip_proj", 1 / 32),
    ],
)
def test_weight_and_bias_take_the_multiplier_of_their_layer(layer: str, factor: float) -> None:
    weights = published_weights(SHAPE)
    folded = fold(weights)
    for name in (f"{layer}.weight", f"{layer}.bias"):
        assert torch.equal(folded[name], (weights[name].double() * factor).float())


@pytest.mark.parametrize("shape", SHAPES)
def test_unfolding_undoes_folding(shape: str) -> None:
    weights = published_weights(TINY | SHAPES[shape])
    back = unfold(fold(weights))
    assert list(back) == list(weights)
    exact = 0
    for name, weight in weights.items():
        assert back[name].dtype == weight.dtype
        ulp = torch.nextafter(weight.abs(), torch.tensor(torch.inf)) - weight.abs()
        assert ((back[name] - weight).abs() <= ulp).all(), name
        exact += torch.equal(back[name], weight)
    assert 0 < exact < len(weights)
    # 1 / 128 and 16**-0.5 are powers of two: nothing is rounded.
    for layer in (f"{HEAD}.linear2", "patch_proj.skip_proj"):
        assert torch.equal(back[f"{layer}.weight"], weights[f"{layer}.weight"])


def test_the_input_is_left_alone() -> None:
    weights = published_weights(TINY)
    kept = {name: weight.clone() for name, weight in weights.items()}
    unfold(fold(weights))
    assert all(torch.equal(weights[name], kept[name]) for name in weights)


def test_a_folder_of_the_published_writer_is_read(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    network = loaded(tmp_path)
    assert network.config.to_json() == json.loads((tmp_path / "config.json").read_text())
    torch.testing.assert_close(network.forecast(*window("missing"), 20), forecast_of(model))


def test_a_folder_in_shards_is_read(package: ModuleType, model: Any, tmp_path: Path) -> None:
    write_shards(tmp_path, model)
    theirs = package.Toto2Model.from_pretrained(tmp_path)  # it is a folder they can read
    assert torch.equal(forecast_of(theirs), forecast_of(model))
    ours = loaded(tmp_path).forecast(*window("missing"), 20)
    torch.testing.assert_close(ours, forecast_of(model))


def write_shards(folder: Path, model: Any) -> None:
    from safetensors.torch import save_file

    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(model.state_dict())
    table = {}
    for index in (1, 2):
        file = f"model-0000{index}-of-00002.safetensors"
        part = {name: model.state_dict()[name].clone() for name in names[index - 1 :: 2]}
        save_file(part, folder / file)
        table |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": table})
    (folder / "model.safetensors.index.json").write_text(text)


def test_an_unfolded_folder_is_read_by_the_published_loader(
    package: ModuleType, tmp_path: Path
) -> None:
    network = network_of(SHAPE, published_weights(SHAPE))
    write_folder(tmp_path / "out", network.config.to_json(), unfold(network.state_dict()))
    theirs = package.Toto2Model.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(network.forecast(*window("missing"), 20), forecast_of(theirs))


@pytest.mark.parametrize(
    "name", ["transformer.layers.1.attn_tau", "transformer.layers.0.attn.in_proj.bias"]
)
def test_a_file_without_a_weight_is_refused(tmp_path: Path, name: str) -> None:
    weights = published_weights(TINY)
    del weights[name]
    write_folder(tmp_path / "out", TINY, weights)
    with pytest.raises(CheckpointError, match=rf"lacks weight '{name}'"):
        loaded(tmp_path / "out")
