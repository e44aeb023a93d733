import json
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.errors import CheckpointError
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets_tests.models.kronos.cases import NETWORKS, TOKENIZERS


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("size", NETWORKS)
def test_network_config_survives_a_round_trip(tmp_path: Path, size: str) -> None:
    config = NetworkConfig.read(written(tmp_path / "config.json", NETWORKS[size]))
    assert config.to_json() == NETWORKS[size]


def test_whole_numbers_are_accepted_as_rates(tmp_path: Path) -> None:
    fields = TOKENIZERS["2k"] | {"ffn_dropout_p": 0, "gamma0": 1}
    config = TokenizerConfig.read(written(tmp_path / "config.json", fields))
    assert config.gamma0 == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"d_model": 250}, "d_model"),
        ({"n_heads": 0}, "n_heads"),
        ({"n_layers": 0}, "n_layers"),
        ({"s1_bits": 17}, "s1_bits"),
        ({"ffn_dropout_p": 1.0}, "ffn_dropout_p"),
        ({"ffn_dropout_p": "0.2"}, "ffn_dropout_p"),
        ({"n_layers": 4.0}, "n_layers"),
        ({"n_layers": True}, "n_layers"),
        ({"learn_te": 1}, "learn_te"),
        ({"model_type": "kronos"}, "model_type"),
    ],
)
def test_a_bad_field_is_named_with_its_file(
    tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    path = written(tmp_path / "config.json", NETWORKS["mini"] | change)
    with pytest.raises(CheckpointError, match=rf"config\.json.*'{field}'"):
        NetworkConfig.read(path)


@pytest.mark.parametrize("field", NETWORKS["mini"])
def test_each_missing_field_is_named(tmp_path: Path, field: str) -> None:
    fields = {name: value for name, value in NETWORKS["mini"].items() if name != field}
    with pytest.raises(CheckpointError, match=rf"'{field}' is missing"):
        NetworkConfig.read(written(tmp_path / "config.json", fields))


def test_the_group_must_divide_the_code(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", TOKENIZERS["base"] | {"group_size": 7})
    with pytest.raises(CheckpointError, match=r"'group_size'.*divide.*20"):
        TokenizerConfig.read(path)


@pytest.mark.parametrize("content", ["{", "[1, 2]"])
def test_what_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        NetworkConfig.read(path)


def test_a_tokenizer_is_not_taken_for_a_network(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", TOKENIZERS["base"])
    with pytest.raises(CheckpointError, match="is this a Kronos network"):
        NetworkConfig.read(path)
