"""Shapes and rates of a Kronos network and of its tokenizer, as their config.json holds them.

Both files are read strictly: a field that is missing, unknown, of another type or out of
range is refused by name, because a network built from a wrong config is a wrong network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from retrain_assets.errors import CheckpointError
from retrain_assets.models.configs import check_fields, read_config, require

DEPENDENCY_HEADS = 4
"""Heads of the dependency-aware layer, the same for every published size."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the autoregressive network. Raises ValueError naming the field at fault."""

    s1_bits: int  # a coarse token is one of 2**s1_bits
    s2_bits: int  # a fine token is one of 2**s2_bits
    n_layers: int
    d_model: int
    n_heads: int
    ff_dim: int  # inner width of the gated feed-forward
    ffn_dropout_p: float
    attn_dropout_p: float  # on attention weights
    resid_dropout_p: float  # on each attention's output
    token_dropout_p: float  # on the sum of token and time embeddings
    learn_te: bool  # learned time embeddings, else fixed sinusoids

    def __post_init__(self) -> None:
        for name in ("s1_bits", "s2_bits"):
            require(1 <= getattr(self, name) <= 16, name, "must be from 1 to 16")
        for name in ("n_layers", "ff_dim"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        _check_heads(self.d_model, self.n_heads)
        require(
            self.d_model % DEPENDENCY_HEADS == 0,
            "d_model",
            f"must be a multiple of {DEPENDENCY_HEADS}, the dependency-aware layer's heads",
        )
        for name in ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p", "token_dropout_p"):
            require(0 <= getattr(self, name) < 1, name, "must be in [0, 1)")

    @classmethod
    def read(cls, path: Path) -> NetworkConfig:
        """Read a network's config.json; raises CheckpointError naming file and field."""
        return _read(cls, path)

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return asdict(self)


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape and loss weights of the tokenizer. Raises ValueError naming the field at fault."""

    d_in: int  # features of a bar
    d_model: int
    n_heads: int
    ff_dim: int
    n_enc_layers: int  # counts the input projection: n_enc_layers - 1 blocks
    n_dec_layers: int  # counts the output projection: n_dec_layers - 1 blocks
    ffn_dropout_p: float
    attn_dropout_p: float
    resid_dropout_p: float
    s1_bits: int
    s2_bits: int
    beta: float  # weight of the commitment loss
    gamma0: float  # weight of the entropy of one code (to be low)
    gamma: float  # weight of the entropy of the codebook's use (to be high)
    zeta: float  # weight of both entropies
    group_size: int  # shape of a stored buffer; the loss counts each bit on its own

    def __post_init__(self) -> None:
        for name in ("s1_bits", "s2_bits"):
            require(1 <= getattr(self, name) <= 16, name, "must be from 1 to 16")
        for name in ("d_in", "ff_dim", "n_enc_layers", "n_dec_layers"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        _check_heads(self.d_model, self.n_heads)
        for name in ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p"):
            require(0 <= getattr(self, name) < 1, name, "must be in [0, 1)")
        bits = self.s1_bits + self.s2_bits
        require(
            1 <= self.group_size <= 16 and bits % self.group_size == 0,
            "group_size",
            f"must be at most 16 and divide s1_bits + s2_bits = {bits}",
        )

    @classmethod
    def read(cls, path: Path) -> TokenizerConfig:
        """Read a tokenizer's config.json; raises CheckpointError naming file and field."""
        return _read(cls, path)

    def to_json(self) -> dict[str, Any]:
        """The content of config.json."""
        return asdict(self)


_Config = TypeVar("_Config", NetworkConfig, TokenizerConfig)


def _read(cls: type[_Config], path: Path) -> _Config:
    content = read_config(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object with the fields of {cls.__name__}")
    types = {field.name: str(field.type) for field in fields(cls)}
    check_fields(content, types, needed=types, where=path, kind=_kind(cls))
    try:
        return cls(**content)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _kind(cls: type[object]) -> str:
    return "a Kronos network" if cls is NetworkConfig else "a Kronos tokenizer"


def _check_heads(d_model: int, n_heads: int) -> None:
    require(n_heads >= 1, "n_heads", "must be at least 1")
    require(
        d_model >= 1 and d_model % (2 * n_heads) == 0,
        "d_model",
        f"must be a multiple of twice n_heads = {n_heads}, for the rotation of half heads",
    )
