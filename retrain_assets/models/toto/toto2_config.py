"""Shape of a Toto 2 network, as its config.json holds it.

Read strictly: a field that is missing, unknown, of another type or out of range is refused by
name, because a network built from a wrong config is a wrong network. What the published loader
accepts but does not compute as stated (dropout, post-norm, several output patches) is refused too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from retrain_assets.errors import CheckpointError
from retrain_assets.models.configs import check_fields, read_config, require

_DERIVED = ("d_ff", "qk_dim", "v_dim", "num_groups", "qk_norm_include_weight")
"""Fields that a file may leave out or hold as null: they follow from others."""


@dataclass(frozen=True, kw_only=True)
class Toto2Config:
    """Shape of the network, every field resolved. Raises ValueError naming the field at fault.

    Names and defaults are those of DataDog/toto, toto2/configuration.py (Apache-2.0).
    """

    patch_size: int  # steps that are one position of the network
    d_model: int
    num_heads: int
    num_layers: int
    layer_group_size: int  # the pattern of time and variate layers repeats after so many
    num_variate_layers_per_group: int
    variate_layer_first: bool  # variate layers open their group, else they close it
    residual_attn_ratio: float  # attention's share of the residual stream, relative to the MLPs'
    d_ff: int  # inner width of the gated feed-forward
    qk_dim: int  # width of a head's queries and keys
    v_dim: int  # width of a head's values
    num_groups: int  # heads of keys and values, each shared by num_heads / num_groups queries
    qk_norm_include_weight: bool
    residual_mult: float = 1.0  # all layers' share of the residual stream
    norm_eps: float = 5e-5
    norm_include_weight: bool = False
    qk_norm: bool = True  # normalise queries and keys
    per_dim_scale: bool = False  # a learned factor for each dimension of the queries
    use_xpos: bool = False
    attn_bias: bool = False
    mlp_bias: bool = False
    dropout_p: float = 0.0
    pre_norm: bool = True
    num_output_patches: int = 1

    def __post_init__(self) -> None:
        for name in ("patch_size", "d_model", "num_heads", "num_layers", "layer_group_size"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("d_ff", "v_dim", "num_groups"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("residual_attn_ratio", "residual_mult", "norm_eps"):
            value = getattr(self, name)
            require(value > 0 and math.isfinite(value), name, "must be positive and finite")
        self._check_layers()
        self._check_heads()
        for name, only in (("dropout_p", 0), ("pre_norm", True), ("num_output_patches", 1)):
            require(getattr(self, name) == only, name, f"must be {only}")

    def _check_layers(self) -> None:
        size, variate = self.layer_group_size, self.num_variate_layers_per_group
        demand = f"must be a multiple of layer_group_size = {size}"
        require(self.num_layers % size == 0, "num_layers", demand)
        demand = f"must be from 0 to layer_group_size = {size}"
        require(0 <= variate <= size, "num_variate_layers_per_group", demand)

    def _check_heads(self) -> None:
        demand = f"must be a multiple of num_heads = {self.num_heads}"
        require(self.d_model % self.num_heads == 0, "d_model", demand)
        demand = f"must divide num_heads = {self.num_heads}"
        require(self.num_heads % self.num_groups == 0, "num_groups", demand)
        demand = "must be a positive multiple of 4, for the rotation of pairs in half a head"
        require(self.qk_dim >= 4 and self.qk_dim % 4 == 0, "qk_dim", demand)

    @property
    def heads_per_group(self) -> int:
        """Heads of queries that share one head of keys and values."""
        return self.num_heads // self.num_groups

    def is_variate_layer(self, index: int) -> bool:
        """Whether layer `index` attends across variates at one position, not along time."""
        place = index % self.layer_group_size
        if self.variate_layer_first:
            return place < self.num_variate_layers_per_group
        return place >= self.layer_group_size - self.num_variate_layers_per_group

    @classmethod
    def read(cls, path: Path) -> Toto2Config:
        """Read a config.json; raises CheckpointError naming file and field."""
        return cls.from_json(read_config(path), path)

    @classmethod
    def from_json(cls, content: object, where: Path) -> Toto2Config:
        """The config that the content of a config.json describes.

        where: the file to name. Raises CheckpointError naming it and the field at fault.
        """
        if not isinstance(content, dict):
            raise CheckpointError(f"{where}: expected the fields of a Toto 2 network")
        given = _checked(content, where)
        stated = given.pop("heads_per_group", None)
        try:
            config = cls(**(_derived(given) | given))
            demand = f"must be num_heads / num_groups = {config.heads_per_group}"
            require(stated in (None, config.heads_per_group), "heads_per_group", demand)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from error
        return config

    def to_json(self) -> dict[str, Any]:
        """The content of config.json, with the fields that the published loader writes."""
        return dict(sorted((asdict(self) | {"heads_per_group": self.heads_per_group}).items()))


def _checked(content: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The fields of a file that are given, each known and of its type."""
    types = {field.name: str(field.type) for field in fields(Toto2Config)}
    types["heads_per_group"] = "int"
    optional = {"heads_per_group", *_DERIVED}
    needed = {f.name for f in fields(Toto2Config) if f.default is MISSING} - optional
    given = {k: v for k, v in content.items() if v is not None or k not in optional}
    check_fields(given, types, needed=needed, where=where, kind="a Toto 2 network")
    return given


def _derived(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the published code puts in place of fields that are not given."""
    heads = max(given["num_heads"], 1)  # a worse number is refused by name afterwards
    qk_dim = given.get("qk_dim", given["d_model"] // heads)
    return {
        "d_ff": (8 * given["d_model"] // 3 + 7) // 8 * 8,
        "qk_dim": qk_dim,
        "v_dim": qk_dim,
        "num_groups": given["num_heads"],
        "qk_norm_include_weight": given.get("norm_include_weight", False),
    }
