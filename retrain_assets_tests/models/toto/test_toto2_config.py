import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retrain_assets.errors import CheckpointError
from retrain_assets.models.toto.toto2_config import Toto2Config
from retrain_assets_tests.models.toto.toto2_cases import PUBLISHED_4M, TINY, toto2_package

REQUIRED = {
    "patch_size": 32,
    "d_model": 512,
    "num_heads": 8,
    "num_layers": 6,
    "layer_group_size": 6,
    "num_variate_layers_per_group": 1,
    "variate_layer_first": False,
    "residual_attn_ratio": 5,
}
DERIVED = ("d_ff", "qk_dim", "v_dim", "num_groups", "heads_per_group", "qk_norm_include_weight")


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return toto2_package()


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_the_published_config_survives_a_round_trip(tmp_path: Path) -> None:
    config = Toto2Config.read(written(tmp_path / "config.json", PUBLISHED_4M))
    assert list(config.to_json().items()) == list(PUBLISHED_4M.items())


@pytest.mark.parametrize(
    "change",
    [
        {},
        dict.fromkeys(DERIVED),
        {"d_model": 768},
        {"qk_dim": 32},
        {"qk_dim": 32, "v_dim": 48, "num_groups": 2},
        {"d_model": 520, "num_heads": 10, "num_groups": 5},
        {"norm_include_weight": True},
        {"norm_include_weight": True, "qk_norm_include_weight": False},
    ],
)
def test_what_is_left_out_is_what_the_published_code_takes(
    package: ModuleType, tmp_path: Path, change: dict[str, Any]
) -> None:
    fields = REQUIRED | change
    config = Toto2Config.read(written(tmp_path / "config.json", fields))
    assert config.to_json() == vars(package.Toto2ModelConfig(**fields))


def test_derived_fields() -> None:
    config = Toto2Config.from_json(REQUIRED, Path("config.json"))
    assert (config.d_ff, config.qk_dim, config.v_dim, config.num_groups) == (1368, 64, 64, 8)
    assert config.heads_per_group == 1


@pytest.mark.parametrize(
    ("first", "kinds"), [(False, [0, 0, 1, 0, 0, 1]), (True, [1, 0, 0, 1, 0, 0])]
)
def test_variate_layers_open_or_close_their_group(first: bool, kinds: list[int]) -> None:
    fields = TINY | {"num_layers": 6, "variate_layer_first": first}
    config = Toto2Config.from_json(fields, Path("config.json"))
    assert [config.is_variate_layer(i) for i in range(6)] == [bool(kind) for kind in kinds]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dropout_p": 0.1}, "dropout_p"),
        ({"pre_norm": False}, "pre_norm"),
        ({"num_output_patches": 2}, "num_output_patches"),
        ({"num_layers": 6}, "num_layers"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_layers": 4.0}, "num_layers"),
        ({"num_layers": True}, "num_layers"),
        ({"patch_size": 0}, "patch_size"),
        ({"d_model": 250}, "d_model"),
        ({"num_heads": 0}, "num_heads"),
        ({"num_groups": 3, "heads_per_group": 1}, "num_groups"),
        ({"num_groups": 0}, "num_groups"),
        ({"num_groups": 2}, "heads_per_group"),
        ({"qk_dim": 62}, "qk_dim"),
        ({"qk_dim": 0}, "qk_dim"),
        ({"v_dim": 0}, "v_dim"),
        ({"d_ff": 0}, "d_ff"),
        ({"layer_group_size": 0}, "layer_group_size"),
        ({"num_variate_layers_per_group": 5}, "num_variate_layers_per_group"),
        ({"num_variate_layers_per_group": -1}, "num_variate_layers_per_group"),
        ({"residual_attn_ratio": None}, "residual_attn_ratio"),
        ({"residual_attn_ratio": 0}, "residual_attn_ratio"),
        ({"residual_mult": float("inf")}, "residual_mult"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"norm_eps": "1e-4"}, "norm_eps"),
        ({"use_xpos": 1}, "use_xpos"),
        ({"model_type": "toto2"}, "model_type"),
    ],
)
def test_a_bad_field_is_named_with_its_file(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    path = written(tmp_path / "config.json", PUBLISHED_4M | change)
    with pytest.raises(CheckpointError, match=rf"config\.json.*'{field}'"):
        Toto2Config.read(path)


@pytest.mark.parametrize("field", REQUIRED)
def test_each_missing_field_is_named(tmp_path: Path, field: str) -> None:
    fields = {name: value for name, value in PUBLISHED_4M.items() if name != field}
    with pytest.raises(CheckpointError, match=rf"'{field}' is missing"):
        Toto2Config.read(written(tmp_path / "config.json", fields))


@pytest.mark.parametrize("content", [[], "toto", None])
def test_a_file_that_holds_no_fields_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: expected the fields"):
        Toto2Config.read(written(tmp_path / "config.json", content))
    with pytest.raises(CheckpointError, match="does not exist"):
        Toto2Config.read(tmp_path / "missing.json")
