"""The config is read strictly: what is not implemented is refused by file and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.errors import CheckpointError
from retrain_assets.models.toto.toto1_config import Toto1Config
from retrain_assets_tests.models.toto.toto1_cases import PUBLISHED

DEFAULTS = {
    "spacewise_first": True,
    "use_memory_efficient_attention": True,
    "stabilize_with_global": True,
    "scale_factor_exponent": 10.0,
}


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_the_published_config_survives_a_round_trip(tmp_path: Path) -> None:
    config = Toto1Config.read(written(tmp_path / "config.json", PUBLISHED))
    assert config.to_json() == PUBLISHED
    assert Toto1Config.read(written(tmp_path / "again.json", config.to_json())) == config


def test_absent_fields_have_upstreams_defaults(tmp_path: Path) -> None:
    fields = {name: value for name, value in PUBLISHED.items() if name not in DEFAULTS}
    assert Toto1Config.from_json(fields, "here").to_json() == fields | DEFAULTS


@pytest.mark.parametrize(
    ("layers", "every", "first", "spacewise"),
    [
        (12, 12, False, [11]),
        (4, 2, True, [0, 2]),
        (6, 3, False, [2, 5]),
        (2, 1, False, [0, 1]),
        (4, -1, True, []),
    ],
)
def test_layers_across_variates_stand_where_upstream_puts_them(
    layers: int, every: int, first: bool, spacewise: list[int]
) -> None:
    change = {
        "num_layers": layers,
        "spacewise_every_n_layers": every,
        "spacewise_first": first,
    }
    config = Toto1Config.from_json(PUBLISHED | change, "here")
    assert [i for i in range(layers) if config.is_spacewise(i)] == spacewise


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stride": 32}, "stride"),
        ({"patch_size": 0, "stride": 0}, "patch_size"),
        ({"patch_size": 64.0}, "patch_size"),
        ({"num_heads": 5}, "embed_dim"),
        ({"num_heads": 256}, "embed_dim"),  # 768 / 256 is odd: no pairs to rotate
        ({"num_heads": 0}, "num_heads"),
        ({"num_layers": True}, "num_layers"),
        ({"spacewise_every_n_layers": 5}, "spacewise_every_n_layers"),
        ({"spacewise_every_n_layers": 0}, "spacewise_every_n_layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": "0.1"}, "dropout"),
        ({"spacewise_first": 0}, "spacewise_first"),
        ({"scaler_cls": "<class 'model.scaler.StdMeanScaler'>"}, "scaler_cls"),
        ({"scaler_cls": 1}, "scaler_cls"),
        (
            {"output_distribution_classes": ["<class 'model.distribution.StudentTOutput'>"]},
            "output_distribution_classes",
        ),
        ({"output_distribution_classes": []}, "output_distribution_classes"),
        ({"output_distribution_classes": "all"}, "output_distribution_classes"),
        ({"output_distribution_classes": [3]}, "output_distribution_classes"),
        ({"output_distribution_kwargs": {}}, "output_distribution_kwargs"),
        ({"output_distribution_kwargs": None}, "output_distribution_kwargs"),
        ({"output_distribution_kwargs": {"k_components": 0}}, "output_distribution_kwargs"),
        ({"output_distribution_kwargs": {"k_components": 2.5}}, "output_distribution_kwargs"),
        (
            {"output_distribution_kwargs": {"k_components": 24, "x": 1}},
            "output_distribution_kwargs",
        ),
        ({"scale_factor_exponent": 2.0}, "scale_factor_exponent"),
        ({"d_model": 768}, "d_model"),
    ],
)
def test_a_bad_field_is_named_with_its_file(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    path = written(tmp_path / "config.json", PUBLISHED | change)
    with pytest.raises(CheckpointError, match=rf"config\.json: field '{field}'"):
        Toto1Config.read(path)


def test_without_the_clamp_its_exponent_does_not_matter() -> None:
    fields = PUBLISHED | {"stabilize_with_global": False, "scale_factor_exponent": 2}
    assert Toto1Config.from_json(fields, "here").scale_factor_exponent == 2


@pytest.mark.parametrize("field", [name for name in PUBLISHED if name not in DEFAULTS])
def test_each_missing_field_is_named(field: str) -> None:
    fields = {name: value for name, value in PUBLISHED.items() if name != field}
    with pytest.raises(CheckpointError, match=rf"here: field '{field}'"):
        Toto1Config.from_json(fields, "here")


@pytest.mark.parametrize("content", ["{", "[1, 2]"])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Toto1Config.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        Toto1Config.read(tmp_path / "config.json")
