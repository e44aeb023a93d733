"""The user's own base models: `bases.yaml` in the checkpoints folder, a section per family.

    kronos:
      my-base: {model: my-kronos, tokenizer: my-tokenizer, max_context: 512}

What a base needs besides its weights (a context limit, a tokenizer, a pinned revision) is
not in its folder, so a folder can only be used once it is listed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrain_assets.errors import BadInput

FILE = "bases.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REVISION = re.compile(r"[0-9a-f]{40}")


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
