"""Shape of a Toto 1 network, as its published config.json holds it.

The file is read strictly: a field that is missing, unknown, of another type or out of range, or a
variant that is not implemented here, is refused by name. A network built from a wrong config is a
wrong network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from retrain_assets.errors import CheckpointError
from retrain_assets.models.configs import check_fields, read_config, require

SCALER = "<class 'model.scaler.CausalPatchStdMeanScaler'>"
DISTRIBUTION = "<class 'model.distribution.MixtureOfStudentTsOutput'>"
"""The published files name Python classes of the package that wrote them."""

LEAST_EXPONENT = 10.0
"""The published clamp, 10**10 around the whole window's spread. It looks ahead, so it is left out
here, which is right as long as it binds nowhere: 10**10 is wider than what bars can do."""


@dataclass(frozen=True)
class Toto1Config:
    """Fields of config.json by their names. Raises ValueError naming the field at fault."""

    patch_size: int  # steps a patch, the unit of the time axis
    stride: int  # from patch to patch; only patch_size is implemented
    embed_dim: int
    num_layers: int
    num_heads: int
    mlp_hidden_dim: int  # inner width of the gated feed-forward
    dropout: float  # on attention weights and on each feed-forward's output
    spacewise_every_n_layers: int  # one layer in n attends across variates; -1: none does
    scaler_cls: str
    output_distribution_classes: list[str]
    output_distribution_kwargs: dict[str, int] = field(default_factory=dict)
    spacewise_first: bool = True  # in each n layers that layer is the first, else the last
    use_memory_efficient_attention: bool = True  # how upstream computes, not what: ignored
    stabilize_with_global: bool = True
    scale_factor_exponent: float = 10.0

    def __post_init__(self) -> None:
        for name in ("patch_size", "num_layers", "num_heads", "mlp_hidden_dim"):
            require(getattr(self, name) >= 1, name, "must be at least 1")
        require(self.stride == self.patch_size, "stride", "must equal patch_size")
        require(
            self.embed_dim >= 1 and self.embed_dim % (2 * self.num_heads) == 0,
            "embed_dim",
            f"must be a multiple of twice num_heads = {self.num_heads}, for the rotation of pairs",
        )
        require(0 <= self.dropout < 1, "dropout", "must be in [0, 1)")
        every = self.spacewise_every_n_layers
        require(
            every == -1 or (every >= 1 and self.num_layers % every == 0),
            "spacewise_every_n_layers",
            f"must be -1 or divide num_layers = {self.num_layers}",
        )
        self._check_variants()

    def _check_variants(self) -> None:
        require(self.scaler_cls == SCALER, "scaler_cls", f"must be {SCALER!r}")
        require(
            self.output_distribution_classes == [DISTRIBUTION],
            "output_distribution_classes",
            f"must be [{DISTRIBUTION!r}]",
        )
        kwargs = self.output_distribution_kwargs
        require(
            kwargs.keys() == {"k_components"} and kwargs["k_components"] >= 1,
            "output_distribution_kwargs",
            "must hold k_components, at least 1, and nothing else",
        )
        require(
            not self.stabilize_with_global or self.scale_factor_exponent >= LEAST_EXPONENT,
            "scale_factor_exponent",
            f"must be at least {LEAST_EXPONENT:g}: a tighter clamp lets later bars change the "
            "scale of earlier ones, and is not implemented",
        )

    @property
    def k_components(self) -> int:
        """Components of the mixture at every step."""
        return self.output_distribution_kwargs["k_components"]

    def is_spacewise(self, layer: int) -> bool:
        """Whether a layer (counted from 0) attends across variates rather than along time."""
        every = self.spacewise_every_n_layers
        return every != -1 and layer % every == (0 if self.spacewise_first else every - 1)

    @classmethod
    def read(cls, path: Path) -> Toto1Config:
        """Read a config.json; raises CheckpointError naming file and field."""
        return cls.from_json(read_config(path), path)

    @classmethod
    def from_json(cls, content: object, where: Path | str) -> Toto1Config:
        """The config that a parsed config.json describes; raises CheckpointError naming the field.

        where: the file, for complaints. Fields for which upstream has a default may be absent.
        """
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{where}: expected an object with the fields of a Toto 1 config")
        types = {f.name: str(f.type) for f in fields(cls)}
        needed = {
            f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING
        }
        check_fields(content, types, needed=needed, where=where, kind="Toto 1")
        try:
            return cls(**content)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The content of config.json, every field written out."""
        return asdict(self)
