"""Finding a base by name: a family's built-in table, and the user's own in `bases.yaml`.

The user's own stand in the checkpoints folder, a section per family.

    kronos:
      my-base: {model: my-kronos, tokenizer: my-tokenizer, max_context: 512}

What a base needs besides its weights (a context limit, a tokenizer, a pinned revision) is
not in its folder, so a folder can only be used once it is listed here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from retrain_assets.errors import BadInput

FILE = "bases.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9a-f]{40}")


_Base = TypeVar("_Base", covariant=True)


class FromEntry(Protocol[_Base]):
    """Makes a base of an entry of `bases.yaml`; raises BadInput starting with `where`."""

    def __call__(self, entry: Mapping[str, Any], *, where: str) -> _Base:
        """The base of an entry; where: what an error begins with, file and entry."""
        ...


@dataclass(frozen=True)
class BaseTable(Generic[_Base]):
    """Bases of one family.

    family: its name, and that of its section of the file. built_in: by name. from_entry: makes a
    base of an entry. unsaid: what a checkpoint folder does not say, in words. example: fields
    beside `model` of an entry that would say it, as lines of YAML.
    """

    family: str
    built_in: Mapping[str, _Base]
    from_entry: FromEntry[_Base]
    unsaid: str
    example: str

    def find(self, name: str, *, checkpoints: Path) -> _Base:
        """The base called `name`: built in, or listed in `checkpoints/bases.yaml`.

        Raises BadInput for an unknown name, with the lines to add if it is a checkpoint folder,
        and for an entry with a missing, unknown or unusable field.
        """
        listed, file = listed_bases(checkpoints, self.family), checkpoints / FILE
        for taken in sorted(listed.keys() & self.built_in.keys()):
            raise BadInput(f"{file}: {self.family}: {taken} is built in: choose another name")
        if name in self.built_in:
            return self.built_in[name]
        if name in listed:
            return self.from_entry(listed[name], where=f"{file}: {self.family}: {name}")
        for folder in (Path(name), checkpoints / name):
            if (folder / "config.json").exists():
                raise BadInput(self._how_to_list(folder, checkpoints))
        known = ", ".join([*self.built_in, *sorted(listed)])
        from retrain_assets.models.forecaster import family  # which imports this module's tables

        title = family(self.family).title
        raise BadInput(f"no {title} base {name!r}: choose one of {known}, or add it to {FILE}")

    def _how_to_list(self, folder: Path, checkpoints: Path) -> str:
        folder = folder.resolve()
        inside = folder.is_relative_to(checkpoints.resolve())
        shown = folder.relative_to(checkpoints.resolve()) if inside else folder
        fields = "".join(f"\n    {line}" for line in self.example.splitlines())
        return (
            f"{folder} is not listed, and its config.json does not say {self.unsaid}. Add these "
            f"lines to {checkpoints / FILE}, with the values of that model, and use the name "
            f"instead of the folder:\n{self.family}:\n  {folder.name.lower()}:\n"
            f"    model: {shown}{fields}"
        )


def check_entry(
    entry: Mapping[str, Any],
    *,
    where: str,
    sources: Collection[str],
    revisions: Collection[str],
) -> None:
    """Check an entry with required fields `sources` and `max_context`, and optional revisions.

    Raises BadInput starting with `where` and naming the field that is missing, unknown or unusable.
    """
    required = {*sources, "max_context"}
    for field in sorted(required - entry.keys()):
        raise BadInput(f"{where}: field {field!r} is missing")
    for field in sorted(map(str, entry.keys() - required - set(revisions))):
        known = ", ".join(sorted(required | set(revisions)))
        raise BadInput(f"{where}: field {field!r} is unknown: use {known}")
    for field in sources:
        if not isinstance(entry[field], str) or not entry[field]:
            raise BadInput(f"{where}: field {field!r} must be a folder or a hub id")
    limit = entry["max_context"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 2:
        raise BadInput(f"{where}: field 'max_context' must be a whole number of at least 2 bars")
    for field in sorted(set(revisions) & entry.keys()):
        if entry[field] is not None:
            checked_revision(entry[field], where=f"{where}: field {field!r}")


def listed_bases(checkpoints: Path, family: str) -> dict[str, dict[str, Any]]:
    """Entries of one family's section of `checkpoints/bases.yaml`, by name; none if no file.

    Raises BadInput naming the file and the entry if it is not YAML, or not a section of named
    mappings.
    """
    path = checkpoints / FILE
    if not path.exists():
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error
    section = (content.get(family) or {}) if isinstance(content, Mapping) else None
    if not isinstance(section, Mapping):
        raise BadInput(f"{path}: expected a section {family!r} that maps names to bases")
    for name, entry in section.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadInput(
                f"{path}: {family}: {name!r} is no usable name: use a-z, 0-9, '.', '_' and '-'"
            )
        if not isinstance(entry, Mapping):
            raise BadInput(f"{path}: {family}: {name}: expected fields, not {entry!r}")
    return {name: dict(entry) for name, entry in section.items()}


def checked_revision(revision: object, *, where: str) -> str:
    """Return `revision` if it is a full commit hash; raises BadInput starting with `where`.

    A branch or tag may point elsewhere tomorrow; only a commit pins the weights.
    """
    if not isinstance(revision, str) or not _REVISION.fullmatch(revision):
        raise BadInput(
            f"{where}: {revision!r} does not pin a revision: give the 40 hexadecimal digits of "
            "the commit, as the hub shows under 'Files and versions'"
        )
    return revision
