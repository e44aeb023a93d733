"""What could forecast in production: naive, or a base model with or without an adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import CheckpointError
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.files import require_fields
from retrain_assets.models.forecaster import Forecaster, family

if TYPE_CHECKING:
    from retrain_assets.training.adapter_store import ModelStore

POINTER = "pointer"
"""What names, beside the families' champions, the version that production points to."""


@dataclass(frozen=True)
class Version:
    """Everything that decides a forecast, beside the bars.

    family: of the model, or `naive`, which has nothing else. base, fingerprint: the base model
    and the digest of its weights. month: whose adapter it is, empty for a base alone.
    adapter: `AdapterRecord` as JSON, None for a base alone. settings: inference parameters.
    options: ways to compute, as they were searched with. context: bars to look back on, at most.
    seed: of sampled forecasts.
    """

    family: str
    base: str = ""
    fingerprint: str = ""
    month: str = ""
    adapter: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    context: int = 1
    seed: int = 0

    @property
    def id(self) -> str:
        """Digest of what decides its forecasts: 16 hexadecimal digits, or `naive`."""
        if self.family == NAIVE:
            return NAIVE
        decisive = self.to_json() | {
            "adapter": None if self.adapter is None else self.adapter["digest"],
            "month": None,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What it is, in a few words: `kronos adapter of 2023-08`."""
        if self.family == NAIVE:
            return NAIVE
        if self.adapter is None:
            return f"{self.family} base {self.base}"
        return f"{self.family} adapter of {self.month}"

    def to_json(self) -> dict[str, Any]:
        """The version as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Version:
        """The version that `to_json` wrote; raises BadInput naming missing or unknown fields."""
        again = "materialize the month's comparison again"
        require_fields(cls, value, what="version", remedy=again)
        return cls(**value)


NAIVE_VERSION = Version(NAIVE)
"""The first thing in production, and what to fall back on."""


def version_forecaster(
    version: Version, *, name: str, store: ModelStore, checkpoints: Path, device: str
) -> Forecaster:
    """Load what a version names, strictly, as a forecaster called `name` in tables.

    store: of adapters. checkpoints: folder of the base models. Raises CheckpointError, saying
    which file is gone or altered, when base or adapter are not those of the version.
    """
    from retrain_assets.models.naive import NaiveForecaster
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.adapters import load_adapted

    if version.family == NAIVE:
        return NaiveForecaster()
    own = family(version.family)
    if version.adapter is not None:
        record = AdapterRecord.from_json(version.adapter)
        model = load_adapted(record, store=store, checkpoints=checkpoints, device=device)
    else:
        model = own.load(version.base, checkpoints=checkpoints, device=device)
    if model.fingerprint != version.fingerprint:
        raise CheckpointError(
            f"base {version.base!r} now has the fingerprint {model.fingerprint[:12]}, the version "
            f"{version.id} was decided on with {version.fingerprint[:12]}: restore that base, or "
            "retrain"
        )
    return own.forecaster(model, name=name, options=version.options)
