"""Which Kronos bases there are: what a checkpoint folder's config.json does not say.

A base is a network, the tokenizer it was trained with, the longest window it takes, and for
hub ids the pinned revisions. The published ones and the bundled nano base are in the table
below; others are entries of the `kronos` section of `bases.yaml` in the checkpoints folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrain_assets.models.bases import BaseTable, check_entry


@dataclass(frozen=True)
class Base:
    """One usable Kronos base.

    model, tokenizer: hub id if its revision is given, else a folder, absolute or inside the
        checkpoints folder.
    max_context: longest window in bars, context and horizon together.
    revision, tokenizer_revision: commit of the hub repository, 40 hexadecimal digits.
    """

    model: str
    tokenizer: str
    max_context: int
    revision: str | None = None
    tokenizer_revision: str | None = None


_TOKENIZER_BASE = "NeoQuasar/Kronos-Tokenizer-base"
_TOKENIZER_BASE_REVISION = "0e0117387f39004a9016484a186a908917e22426"

# Context limits and pairings: the model zoo table of shiyu-coder/Kronos' README.
BUILT_IN: Mapping[str, Base] = {
    "nano": Base(model="kronos-nano", tokenizer="kronos-tokenizer-nano", max_context=512),
    "mini": Base(
        model="NeoQuasar/Kronos-mini",
        tokenizer="NeoQuasar/Kronos-Tokenizer-2k",
        max_context=2048,
        revision="f4e68697d9d5aed55cef5c96aabc3376bcad9f81",
        tokenizer_revision="26966d0035065a0cae0ebad7af8ece35bc1fb51c",
    ),
    "small": Base(
        model="NeoQuasar/Kronos-small",
        tokenizer=_TOKENIZER_BASE,
        max_context=512,
        revision="901c26c1332695a2a8f243eb2f37243a37bea320",
        tokenizer_revision=_TOKENIZER_BASE_REVISION,
    ),
    "base": Base(
        model="NeoQuasar/Kronos-base",
        tokenizer=_TOKENIZER_BASE,
        max_context=512,
        revision="2b554741eca47781b64468546e77fef3e85130e6",
        tokenizer_revision=_TOKENIZER_BASE_REVISION,
    ),
}


def _from_entry(entry: Mapping[str, Any], *, where: str) -> Base:
    check_entry(
        entry,
        where=where,
        sources=("model", "tokenizer"),
        revisions=("revision", "tokenizer_revision"),
    )
    return Base(**entry)


TABLE = BaseTable(
    family="kronos",
    built_in=BUILT_IN,
    from_entry=_from_entry,
    unsaid="which tokenizer it was trained with, nor its longest window",
    example=(
        f"tokenizer: {_TOKENIZER_BASE}\n"
        f"tokenizer_revision: {_TOKENIZER_BASE_REVISION}\n"
        "max_context: 512"
    ),
)


def find_base(name: str, *, checkpoints: Path) -> Base:
    """The base called `name`; errors as `BaseTable.find`."""
    return TABLE.find(name, checkpoints=checkpoints)
