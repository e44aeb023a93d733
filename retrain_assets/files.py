"""Files written whole or not at all, and names that are safe to use as paths."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from retrain_assets.errors import BadInput

_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,15}")


def checked_symbol(symbol: str) -> str:
    """Return `symbol` if it may be used in file names and partition keys.

    Allowed are 1 to 16 upper-case letters, digits, dots and dashes, starting with a letter
    or digit (`BRK.B`, `ADA-USD`). Raises BadInput otherwise, so that no symbol ever becomes
    a path that leaves its folder, nor a partition key that Dagster refuses.
    """
    if not _SYMBOL.fullmatch(symbol) or ".." in symbol:
        raise BadInput(
            f"{symbol!r} is no usable symbol: use 1 to 16 of A-Z, 0-9, '.' and '-', "
            "starting with a letter or digit"
        )
    return symbol


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; it replaces `path` only on success.

    The bytes are flushed to the disk before the rename, so a crash leaves either the old
    file or the new one. On any error the temporary file is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(path)
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder to fill; it takes the place of `path` only on success.

    An existing folder is moved aside first and removed last, so at no moment does a reader
    see a mixture. On any error the temporary folder is removed and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(path)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _flush(file)
        _swap_in(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def exclusive(path: Path, *, seconds: float, busy: str) -> Iterator[None]:
    """Hold a lock file, in this process and among others; its holder may take it again.

    Raises BadInput when another holds it for so long; busy: what is going on then, in words.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    # A singleton counts its holders: a thread that holds the lock gets it again, others wait.
    lock = FileLock(path, timeout=seconds, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise BadInput(f"{busy} ({path} is locked): try again when it is done") from error
    try:
        yield
    finally:
        lock.release()


def _swap_in(partial: Path, path: Path) -> None:
    if not path.exists():
        partial.rename(path)
        return
    old = _partial_name(path)
    path.rename(old)
    try:
        partial.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused (not JSON)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def require_fields(cls: type[Any], value: Mapping[str, Any], *, what: str, remedy: str) -> None:
    """Raise BadInput unless a JSON object has the fields of a dataclass, all and no others.

    what: is stored, in a word. remedy: how to get one that is whole.
    """
    names = {f.name for f in fields(cls)}
    if names != set(value):
        missing, surplus = sorted(names - set(value)), sorted(set(value) - names)
        raise BadInput(f"the stored {what} lacks {missing} and has unknown {surplus}: {remedy}")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises BadInput with the file and line if it is missing or malformed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}") from error
