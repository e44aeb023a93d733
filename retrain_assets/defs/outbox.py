"""What MLflow was away for, kept on the disk until it is back; `delivery` logs it then.

A folder for each stretch of a run that could not be logged, named by when it began. Beside it lies
a lock that its writer holds while it lives, so that nobody sends what is still being written.

    20251101T093000.000000-5f0c2a1b/
        run.json         what run it belongs to, its tags, params, times and status: see `Kept`
        metrics.jsonl    a line a value: name, value, milliseconds, step
        artifacts/000/   files of one call, in the order of calls
    registry/NVDA.json   a stock whose aliases in the model registry lag behind

A writer that is killed leaves what it had written so far, and no status.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import BadInput, CannotWrite, RetrainError
from retrain_assets.files import (
    atomic_folder,
    checked_symbol,
    read_json,
    require_fields,
    sweep,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCAL = "kept-"
"""How the id of a run begins that MLflow has not given one yet."""
REGISTRY = "registry"
_RUN, _METRICS, _ARTIFACTS = "run.json", "metrics.jsonl", "artifacts"
_REFUSED = ".refused"
_REMEDY = "see to it by hand, or remove it"

Value = tuple[str, float, int, int]
"""Name, value, milliseconds since 1970, step."""


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)


def new_key() -> str:
    """A name for a run that nobody else gives."""
    return f"{LOCAL}{uuid.uuid4().hex}"


@dataclass
class Kept:
    """What is known of a run.

    store: MLflow's address it is for. key: ours, which MLflow's run has as a tag. run: MLflow's id,
    None while it has none. start, end: milliseconds. status: as MLflow says it, None until it ends.
    links: by id of a Dagster run the name of its tag that holds MLflow's id.
    """

    store: str
    experiment: str
    name: str
    tags: dict[str, str]
    key: str = field(default_factory=new_key)
    run: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    start: int = field(default_factory=now)
    end: int | None = None
    status: str | None = None
    links: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """MLflow's id, or ours while it has none."""
        return self.run or self.key

    def belongs_to(self, id: str) -> bool:
        """Whether `id` is the run's, MLflow's or ours."""
        return id in (self.run, self.key)


class Entry:
    """A stretch of a run in the outbox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> Kept:
        """What its run.json says; raises BadInput for one that is malformed."""
        return _kept(self.folder / _RUN)

    def metrics(self) -> list[Value]:
        """The values, in their order; a last line that was not written to its end is left out."""
        file = self.folder / _METRICS
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        try:
            return [_value(json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise BadInput(f"{file} is no list of values: {error}: {_REMEDY}") from error

    def artifacts(self) -> list[Path]:
        """Folders of files, one a call, in their order."""
        root = self.folder / _ARTIFACTS
        named = [path for path in root.iterdir() if path.name[0] != "."] if root.is_dir() else []
        return sorted(named)

    @property
    def last_written(self) -> int:
        """When it was written to last, in milliseconds."""
        return int(max(p.stat().st_mtime for p in self.folder.rglob("*")) * 1000)

    def remove(self) -> None:
        """Take it out of the outbox; a removal that is cut short leaves nothing to send."""
        gone = self.folder.with_name(f".{self.folder.name}")
        self.folder.rename(gone)
        shutil.rmtree(gone)
        _lock_file(self.folder).unlink(missing_ok=True)

    def set_aside(self, reason: str) -> Path:
        """Keep it for a person to look at, beside why it cannot be sent; returns where."""
        aside = self.folder.with_name(self.folder.name + _REFUSED)
        write_text(self.folder / "reason.txt", f"{reason}\n")
        self.folder.rename(aside)
        _lock_file(self.folder).unlink(missing_ok=True)
        return aside


class Writer:
    """A stretch of a run that is being written; raises CannotWrite when the disk does not take it.

    kept: may be changed; `save` puts it on the disk.
    """

    def __init__(self, entry: Entry, kept: Kept, lock: BaseFileLock) -> None:
        self.folder, self.kept, self._lock = entry.folder, kept, lock
        self._calls = 0

    def save(self) -> None:
        """Write down what is known of the run."""
        write_json(self.folder / _RUN, dataclasses.asdict(self.kept))

    def params(self, params: Mapping[str, str]) -> None:
        """Add parameters. Raises RetrainError for one that has another value already."""
        for name, value in params.items():
            if self.kept.params.get(name, value) != value:
                raise RetrainError(
                    f"parameter {name!r} of {self.kept.name} is {self.kept.params[name]!r} and "
                    f"cannot become {value!r}: MLflow takes one value"
                )
        self.kept.params.update(params)
        self.save()

    def metrics(self, values: Sequence[Value]) -> None:
        """Add values."""
        text = "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)
        file = self.folder / _METRICS
        try:
            with file.open("a", encoding="utf-8") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror, str(file)) from error

    def add_files(self, write: Callable[[Path], object]) -> None:
        """Add files: what `write` puts into the folder it is given, whole or not at all."""
        with atomic_folder(self.folder / _ARTIFACTS / f"{self._calls:03d}") as folder:
            write(folder)
        self._calls += 1

    def close(self, status: str) -> None:
        """Write down how the run ended, and let others send it."""
        self.kept.status, self.kept.end = status, now()
        try:
            self.save()
        finally:
            self._lock.release()


class Outbox:
    """What waits under a folder, for one or more stores."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, kept: Kept) -> Writer:
        """Open a stretch of a run, which nobody sends before it is closed or its writer dies."""
        when = dt.datetime.now(dt.UTC)
        folder = self.root / f"{when:%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}"
        self.root.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
        lock.acquire(timeout=0)  # nobody else knows this name
        with atomic_folder(folder) as partial:
            write_json(partial / _RUN, dataclasses.asdict(kept))
        return Writer(Entry(folder), kept, lock)

    def entries(self) -> list[Entry]:
        """What waits, oldest first."""
        return [Entry(path) for path in sorted(self._folders()) if path.suffix != _REFUSED]

    def refused(self) -> list[Path]:
        """What was set aside."""
        return sorted(path for path in self._folders() if path.suffix == _REFUSED)

    def waits_for(self, id: str) -> bool:
        """Whether a part of a run waits."""
        for entry in self.entries():
            with contextlib.suppress(BadInput):  # it is set aside when it is to be sent
                if entry.read().belongs_to(id):
                    return True
        return False

    @contextlib.contextmanager
    def sending(self, *, seconds: float) -> Iterator[bool]:
        """Hold the right to send what waits; yields whether it was to be had in time."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            yield False
            return
        try:
            self._clean()
            yield True
        finally:
            lock.release()

    @contextlib.contextmanager
    def claimed(self, entry: Entry) -> Iterator[bool]:
        """Hold an entry; yields whether nobody is at it, so that it may be sent."""
        from filelock import Timeout

        lock = _lock(entry.folder)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield entry.folder.is_dir()
        finally:
            lock.release()

    def lagging(self, store: str) -> dict[str, Kept]:
        """By symbol the run that decided, of stocks whose aliases lag behind in a store."""
        files = sorted((self.root / REGISTRY).glob("[!.]*.json"))
        deciders = {file.stem: _kept(file) for file in files}
        return {symbol: kept for symbol, kept in deciders.items() if kept.store == store}

    def note_lag(self, symbol: str, decider: Kept) -> None:
        """Note that a stock's aliases lag behind what a run decided."""
        write_json(self._lag(symbol), dataclasses.asdict(decider))

    def clear_lag(self, symbol: str) -> None:
        """Note that a stock's aliases are in line."""
        self._lag(symbol).unlink(missing_ok=True)

    def _lag(self, symbol: str) -> Path:
        return self.root / REGISTRY / f"{checked_symbol(symbol)}.json"

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [p for p in self.root.iterdir() if p.name[0].isdigit() and p.is_dir()]

    def _clean(self) -> None:
        """Remove what killed writers and senders left; no name here is used twice."""
        sweep(self.root)
        for path in self.root.glob(".[0-9]*"):
            if path.is_dir() and not path.name.endswith(".partial"):
                shutil.rmtree(path)
        for file in self.root.glob("[0-9]*.lock"):
            entry = Entry(file.with_suffix(""))
            with self.claimed(entry) as there:
                if not there and not entry.folder.exists():
                    file.unlink(missing_ok=True)


def _kept(file: Path) -> Kept:
    value = read_json(file)
    if not isinstance(value, Mapping):
        raise BadInput(f"{file} is no JSON object: {_REMEDY}")
    require_fields(Kept, value, what=str(file), remedy=_REMEDY)
    return Kept(**value)


def _value(line: list[Any]) -> Value:
    name, value, when, step = line
    return str(name), float(value), int(when), int(step)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _lock(folder: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(_lock_file(folder))
