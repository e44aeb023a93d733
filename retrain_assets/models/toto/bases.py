"""Which Toto bases there are: the published ones, the bundled ones, and the user's own.

The generation is told from a folder's config.json. What that file does not say is how long a
window a base takes; the table below says it, and for the hub ids the pinned revision. The user's
own are entries of the `toto` section of `bases.yaml` in the checkpoints folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain_assets.models.bases import BaseTable, check_entry

TRAINED_CONTEXT = 4096
"""Steps that both generations were trained on: stated for Toto 1; for Toto 2 it is what its
residual_attn_ratio of 5.136, sqrt(S / log S) at S = 128 patches of 32, comes to."""


@dataclass(frozen=True)
class Base:
    """One usable Toto base.

    model: hub id if its revision is given, else a folder, absolute or inside the checkpoints
        folder.
    max_context: longest window in steps, context and horizon together.
    revision: commit of the hub repository, 40 hexadecimal digits.
    patch: steps of a patch, where that is known without reading config.json.
    """

    model: str
    max_context: int
    revision: str | None = None
    patch: int | None = None


def _published(name: str, revision: str, *, patch: int) -> Base:
    return Base(f"Datadog/{name}", TRAINED_CONTEXT, revision, patch)


# Context of the bundled ones: their own cards.
BUILT_IN: Mapping[str, Base] = {
    "nano": Base("toto-nano", max_context=1088),
    "nano-1": Base("toto-1-nano", max_context=1088),
    "4m": _published("Toto-2.0-4m", "8306a9801cf98c0f5ffe4b2dcc8f496e616d84d9", patch=32),
    "22m": _published("Toto-2.0-22m", "685e4ae3e2be8d8998025e53dd98e7fdcb296a89", patch=32),
    "313m": _published("Toto-2.0-313m", "a7bab288f5e95f8606f8306f86659357e1c001ef", patch=32),
    "1b": _published("Toto-2.0-1B", "1604e1a5242884fb9848f88c4ced14f4dc62d9d3", patch=32),
    "2.5b": _published("Toto-2.0-2.5B", "51a2812bbe449437c01b79c0e425ed578f335f5b", patch=32),
    # The model of the retraining guide.
    "open-base-1.0": _published(
        "Toto-Open-Base-1.0", "0411ceb27bdf7fc3e4892e99edc8ad08192dc3c5", patch=64
    ),
}


def _from_entry(entry: Mapping[str, Any], *, where: str) -> Base:
    check_entry(entry, where=where, sources=("model",), revisions=("revision",))
    return Base(**entry)


TABLE = BaseTable(
    family="toto",
    built_in=BUILT_IN,
    from_entry=_from_entry,
    unsaid="its longest window",
    example=f"max_context: {TRAINED_CONTEXT}",
)


def find_base(name: str, *, checkpoints: Path) -> Base:
    """The base called `name`; errors as `BaseTable.find`."""
    return TABLE.find(name, checkpoints=checkpoints)
