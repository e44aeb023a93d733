"""Checkpoint folders as published: config.json beside model.safetensors, whole or in shards.

Reading is strict: a weight that is missing, left over, or of another shape or type than the
network's is an error with its name. Nothing but JSON and safetensors is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.files import atomic_folder, read_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_FILES = [CONFIG, "*.safetensors", INDEX]


def local_folder(source: str, revision: str | None, *, checkpoints: Path) -> Path:
    """Folder of a checkpoint; a hub id (one with a revision) is downloaded if need be.

    Raises CheckpointError if there is no such folder, or if the hub does not give it.
    """
    if revision is not None:
        return _downloaded(source, revision)
    folder = checkpoints / source  # an absolute source replaces the checkpoints folder
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} does not exist; if {source!r} is a hub id, pin it with a revision"
        )
    return folder


def config_file(source: str, revision: str | None, *, checkpoints: Path) -> Path:
    """A checkpoint's config.json, of a hub id without its weights. Errors as `local_folder`."""
    if revision is not None:
        return _downloaded(source, revision, files=[CONFIG]) / CONFIG
    return existing(local_folder(source, None, checkpoints=checkpoints), CONFIG)


def source_digest(source: str, revision: str | None, *, checkpoints: Path) -> str:
    """What tells a checkpoint from any other without loading it: its revision, or SHA-256 of files.

    Raises CheckpointError if there is no such folder.
    """
    if revision is not None:
        return f"{source}@{revision}"
    folder = local_folder(source, None, checkpoints=checkpoints)
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _FILES for file in folder.glob(pattern)}):
        known = file.stat()
        digest.update(
            f"{file.name} {_file_digest(file, known.st_size, known.st_mtime_ns)}".encode()
        )
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _file_digest(file: Path, size: int, changed_ns: int) -> str:
    """SHA-256 of a file, read again in this process only once its size or time has changed."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _downloaded(repository: str, revision: str, *, files: Sequence[str] = _FILES) -> Path:
    """A pinned revision's folder: of the hub's cache if it is whole there, else from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        path = snapshot_download(repository, revision=revision, allow_patterns=list(files))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{repository} at {revision} cannot be downloaded ({_first_line(error)}) and is not in "
            f"the cache folder {HF_HUB_CACHE}. Where the hub can be reached, run `hf download "
            f"{repository} --revision {revision} --local-dir FOLDER`; copy that folder into the "
            "checkpoints folder here and list it in bases.yaml under a name of its own. To work "
            "offline without it, use the bundled base nano"
        ) from error
    return Path(path)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def existing(folder: Path, name: str) -> Path:
    """A file of a checkpoint folder; raises CheckpointError if it is missing."""
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a checkpoint is {CONFIG} and {WEIGHTS}")
    return path


def stored_weights(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """All tensors of a folder by their stored names, and the file to name in complaints.

    Raises CheckpointError for a file that is missing or unreadable, and for a shard that does not
    hold what the index says.
    """
    index = folder / INDEX
    if not index.is_file():
        path = existing(folder, WEIGHTS)
        return _read(path), path
    weights: dict[str, Tensor] = {}
    shards = _shards(index)
    for file in sorted(set(shards.values())):
        held = _read(existing(folder, file))
        wanted = {name for name, of in shards.items() if of == file}
        for name in sorted(wanted ^ held.keys()):
            what = "lacks" if name in wanted else "has the unlisted"
            raise CheckpointError(f"{folder / file} {what} weight {name!r} according to {index}")
        weights |= held
    return weights, index


def _shards(index: Path) -> dict[str, str]:
    """File of each weight; only plain file names, so that no index reaches outside its folder."""
    try:
        content = read_json(index)
    except BadInput as error:
        raise CheckpointError(str(error)) from error
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index}: field 'weight_map' must map weights to files")
    for name, file in table.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index}: {name!r}: {file!r} is no file name in this folder")
    return table


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    return weights


def check_weights(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path) -> None:
    """That `found` has the names, shapes and types of `wanted` and finite values.

    source: the file they were read from. Raises CheckpointError naming the first that does not.
    """
    for problem, names in (
        ("lacks", sorted(wanted.keys() - found.keys())),
        ("has the unknown", sorted(found.keys() - wanted.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"{source} {problem} weight {names[0]!r}{more}: it is not of the model that "
                f"{source.parent / CONFIG} describes"
            )
    for name, tensor in wanted.items():
        for what, should, is_ in (
            ("shape", tuple(tensor.shape), tuple(found[name].shape)),
            ("type", tensor.dtype, found[name].dtype),
        ):
            if should != is_:
                raise CheckpointError(
                    f"{source}: weight {name!r} has {what} {is_}, but {source.parent / CONFIG} "
                    f"demands {should}"
                )
        if not found[name].isfinite().all():
            raise CheckpointError(f"{source}: weight {name!r} holds values that are not finite")


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    card: str | None = None,
) -> None:
    """Write config.json, model.safetensors and, if given, README.md; all of it or nothing."""
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with atomic_folder(folder) as partial:
        text = json.dumps(config, indent=2) + "\n"
        (partial / CONFIG).write_text(text, encoding="utf-8")
        save_file(stored, partial / WEIGHTS, metadata={"format": "pt"})
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")
