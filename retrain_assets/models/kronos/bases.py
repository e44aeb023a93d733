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

from retrain_assets.errors import BadInput
from retrain_assets.models.bases import FILE, checked_revision, listed_bases


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


def find_base(name: str, *, checkpoints: Path) -> Base:
    """The base called `name`: built in, or listed in `checkpoints/bases.yaml`.

    Raises BadInput for an unknown name, with the lines to add if it is a checkpoint folder,
    and for an entry with a missing, unknown or unusable field.
    """
    listed = listed_bases(checkpoints, "kronos")
    for taken in sorted(listed.keys() & BUILT_IN.keys()):
        raise BadInput(f"{checkpoints / FILE}: kronos: {taken} is built in: choose another name")
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in listed:
        return _from_entry(listed[name], f"{checkpoints / FILE}: kronos: {name}")
    for folder in (Path(name), checkpoints / name):
        if (folder / "config.json").exists():
            raise BadInput(_how_to_list(folder, checkpoints))
    known = ", ".join([*BUILT_IN, *sorted(listed)])
    raise BadInput(f"no Kronos base {name!r}: choose one of {known}, or add it to {FILE}")


def _from_entry(entry: Mapping[str, Any], where: str) -> Base:
    required = {"model", "tokenizer", "max_context"}
    optional = {"revision", "tokenizer_revision"}
    for field in sorted(required - entry.keys()):
        raise BadInput(f"{where}: field {field!r} is missing")
    for field in sorted(map(str, entry.keys() - required - optional)):
        raise BadInput(f"{where}: field {field!r} is unknown: use {_list(required | optional)}")
    for field in ("model", "tokenizer"):
        if not isinstance(entry[field], str) or not entry[field]:
            raise BadInput(f"{where}: field {field!r} must be a folder or a hub id")
    limit = entry["max_context"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 2:
        raise BadInput(f"{where}: field 'max_context' must be a whole number of at least 2 bars")
    for field in sorted(optional & entry.keys()):
        if entry[field] is not None:
            checked_revision(entry[field], where=f"{where}: field {field!r}")
    return Base(**entry)


def _how_to_list(folder: Path, checkpoints: Path) -> str:
    folder = folder.resolve()
    inside = folder.is_relative_to(checkpoints.resolve())
    shown = folder.relative_to(checkpoints.resolve()) if inside else folder
    return (
        f"{folder} is not listed, and its config.json says neither which tokenizer it was "
        f"trained with nor its longest window. Add these lines to {checkpoints / FILE}, with "
        "the tokenizer and max_context of that model, and use the name instead of the folder:\n"
        "kronos:\n"
        f"  {folder.name.lower()}:\n"
        f"    model: {shown}\n"
        f"    tokenizer: {_TOKENIZER_BASE}\n"
        f"    tokenizer_revision: {_TOKENIZER_BASE_REVISION}\n"
        "    max_context: 512"
    )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
