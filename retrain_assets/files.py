"""Files written whole or not at all, and names that are safe to use as paths.

What is being written has a hidden name of its own and a lock on it, which ends with its writer. So
whoever writes next can tell what a killed writer left behind from what is still being written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from retrain_assets.errors import BadInput, CannotWrite

MONTH = r"[1-9]\d{3}-(0[1-9]|1[0-2])"
"""What a month looks like, as a regular expression."""
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.\-]{0,15}")
PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.partial")
"""Name of what is being written, or was when its writer was killed."""
_UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST),
}
"""What the system answers where a disk is full, or does not take what is written."""


def is_month(text: str) -> bool:
    """Whether a text is a month as it stands in partition keys and paths, `2023-08`."""
    return re.fullmatch(MONTH, text) is not None


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


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; it replaces `path` only on success.

    The bytes are flushed to the disk before the rename, so a crash leaves either the old
    file or the new one. On any error the temporary file is removed and `path` is untouched.
    Raises CannotWrite, naming `path`, when the disk does not take it.
    """
    with _explained(path), _temporary(path, Path.touch) as partial:
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
    Raises CannotWrite, naming `path`, when the disk does not take it.
    """
    with _explained(path), _temporary(path, Path.mkdir) as partial:
        try:
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    _flush(file)
            _swap_in(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def sweep(folder: Path, name: str | None = None) -> list[Path]:
    """Remove what killed writers left in a folder, of one file or of all; returns what it was.

    What a living writer is at holds a lock, on this machine or another, and stays. Every write
    does this for its own name.
    """
    found = {Path(entry.path): PARTIAL.fullmatch(entry.name) for entry in os.scandir(folder)}
    named = [path for path, match in found.items() if match and name in (None, match["name"])]
    return [path for path in named if _abandoned(path)]


def _abandoned(partial: Path) -> bool:
    """Remove a temporary file or folder unless its writer lives; whether it is gone."""
    with contextlib.suppress(FileNotFoundError):  # its writer may finish in this moment
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            if not _locked(descriptor):
                return False
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()
        finally:
            os.close(descriptor)
    return True


@contextlib.contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new temporary sibling of `path`, locked for as long as this process is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    partial, descriptor = _begun(path, make)
    try:
        yield partial
    finally:
        os.close(descriptor)


def _begun(path: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    while True:
        partial = _partial_name(path)
        make(partial)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(partial, os.O_RDONLY)
            if _locked(descriptor) and partial.exists():
                return partial, descriptor
            os.close(descriptor)
        # Swept by another writer of the same file in the moment before the lock: once more.


def _locked(descriptor: int) -> bool:
    """Take the lock on an open file or folder; False if another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a full disk raises into CannotWrite; anything else goes through."""
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number not in _UNWRITABLE:
            raise
        raise CannotWrite(number, os.strerror(number), str(path)) from error


def _error_number(error: Exception) -> int:
    """The system's number of an error, 0 if it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    # The tensor library puts it into its words alone.
    named = re.search(r"\(os error (\d+)\)", str(error))
    return int(named[1]) if named else 0


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


@contextlib.contextmanager
def turn(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, in this process and among others, however long another has it.

    waiting: called once if another does. A holder that dies lets go of it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire(timeout=-1, poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def _swap_in(partial: Path, path: Path) -> None:
    if not path.exists():
        partial.rename(path)
        return
    old, descriptor = _partial_name(path), os.open(path, os.O_RDONLY)
    try:
        _locked(descriptor)  # nobody sweeps what may yet be needed again
        path.rename(old)
        try:
            partial.rename(path)
        except BaseException:
            old.rename(path)
            raise
        shutil.rmtree(old)
    finally:
        os.close(descriptor)


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
