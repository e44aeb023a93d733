"""The inbox: price files that are dropped into a folder, taken in when nobody writes to them.

A file that is accepted goes to `imported/` below the inbox, any other to `quarantine/` with a
report beside it. A file is imported before it is moved: killed in between, it is imported once
more, which changes nothing.
"""

from __future__ import annotations

import os
import stat
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.files import exclusive, write_text
from retrain_assets.market.bars import BarStore
from retrain_assets.market.importing import ImportFailure, ImportReport, import_files

IMPORTED = "imported"
QUARANTINE = "quarantine"
REPORT = ".report.txt"

# How browsers, editors and copying tools name a file that they are still writing.
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", "~")
_BUSY_SECONDS = 2.0
# A file that could not be moved out of the inbox is not looked at again for so long.
_STUCK_MS = 3_600_000
# File systems take 255 bytes; a stamp and the report's ending need some of them.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Refused:
    """A file of which something was refused.

    name: as it was called in the inbox. error: what was refused and what to do about it.
    report: the text beside the quarantined file, which also says what was imported.
    """

    name: str
    error: str
    report: Path

    def __str__(self) -> str:
        return f"{self.name}: {self.error}\n  see {self.report}"


@dataclass(frozen=True)
class Taken:
    """What one look at the inbox came to.

    imported: one report a symbol. waiting: files that are left for a later look, by name:
    [size in bytes, time of change in ns, moment in ms at which they were first seen like this],
    to be handed to that look as `seen`.
    """

    imported: tuple[ImportReport, ...]
    refused: tuple[Refused, ...]
    waiting: dict[str, list[int]]


@dataclass(frozen=True)
class Intake:
    """Where files are taken from and to, and by what rules; see `take_in`."""

    inbox: Path
    store: BarStore
    calendar_of: Callable[[str], str]
    aliases: Mapping[str, str]
    largest_mb: int

    def take(self, path: Path, *, now: float) -> tuple[list[ImportReport], Refused | None]:
        """Import one file of the inbox and move it; the caller holds the inbox.

        now: seconds since 1970. A file that has changed meanwhile stays where it is. Raises
        OSError when the file cannot be moved, or its report not be written.
        """
        before = path.lstat()
        imported, refusals = self._imported(path, before, now)
        if _state(path) != _of(before):
            return imported, None
        if not refusals:
            folder = self.inbox / IMPORTED
            folder.mkdir(exist_ok=True)
            path.rename(free_path(folder, path.name, pd.Timestamp(now, unit="s")))
            return imported, None
        return imported, quarantined(path, imported, refusals, inbox=self.inbox, now=now)

    def _imported(
        self, path: Path, status: os.stat_result, now: float
    ) -> tuple[list[ImportReport], list[str]]:
        """What was imported of a file, and what was refused, in words."""
        if stat.S_ISLNK(status.st_mode):
            return [], [f"{path} is a symbolic link and was not followed: put the file itself here"]
        if path.name != shown(path.name):
            return [], [f"{shown(path.name)}: its name is no plain text; rename it"]
        if status.st_size > self.largest_mb * 2**20:
            return [], [
                f"{path} has {status.st_size / 2**20:,.0f} MB and was not read, the largest that "
                f"is taken has {self.largest_mb}: cut it to the rows that are new, or raise "
                "operation.inbox.largest_mb in universe.yaml"
            ]
        try:
            results = import_files(
                [path],
                self.store,
                calendar_of=self.calendar_of,
                aliases=self.aliases,
                now=pd.Timestamp(now, unit="s", tz="UTC"),
            )
        except Exception:
            # Not foreseen, so told in full; the files after this one are no worse for it.
            return [], [f"{path}: reading it failed in a way nobody foresaw\n{_trace()}"]
        imported = [result for result in results if isinstance(result, ImportReport)]
        return imported, [str(result) for result in results if isinstance(result, ImportFailure)]


def take_in(
    inbox: Path,
    store: BarStore,
    *,
    calendar_of: Callable[[str], str],
    aliases: Mapping[str, str],
    quiet_seconds: float,
    largest_mb: int,
    seen: Mapping[str, Sequence[int]],
    seconds: float = 20.0,
    now: float | None = None,
) -> Taken:
    """Import the files that lie in the inbox and have not changed for a while.

    inbox: created if missing; plain files and links directly in it are looked at, but for hidden
        names and those of unfinished files (`.part`, `.tmp` and the like).
    calendar_of, aliases: as for `import_files`.
    quiet_seconds: size and time of change must have stayed the same for so long, from one look to
        another and by the file's own time, unless that lies in the future.
    largest_mb: larger files are refused unread.
    seen: what the look before left as `waiting`.
    seconds: after so many no further file is begun; the rest waits. One file is always taken.
    now: seconds since 1970 (default: the clock).

    Never raises for what a file holds. While another process takes files in, everything waits.
    """
    now = time.time() if now is None else now
    inbox.mkdir(parents=True, exist_ok=True)
    intake = Intake(inbox, store, calendar_of, aliases, largest_mb)
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(inbox))
        except BadInput:
            return Taken((), (), {name: [int(n) for n in state] for name, state in seen.items()})
        return _look(intake, quiet_seconds, seen, seconds, now)


def quarantined(
    path: Path,
    imported: Sequence[ImportReport],
    refusals: Sequence[str],
    *,
    inbox: Path,
    now: float,
) -> Refused:
    """Move a file into quarantine, with a report beside it; the caller holds the inbox.

    imported: what was taken of it all the same. refusals: what was not, in words. now: seconds
    since 1970.
    """
    folder = inbox / QUARANTINE
    folder.mkdir(exist_ok=True)
    target = free_path(folder, path.name, pd.Timestamp(now, unit="s"))
    report = target.with_name(target.name + REPORT)
    # First the report: whoever finds the file finds the reason.
    write_text(report, _report(path, target, imported, refusals, now))
    path.rename(target)
    return Refused(shown(path.name), "\n".join(refusals), report)


def holding(inbox: Path) -> AbstractContextManager[None]:
    """Hold the right to take files in; BadInput when another process does for over 2 seconds."""
    inbox.mkdir(parents=True, exist_ok=True)
    busy = f"files in {inbox} are being taken in by another process"
    return exclusive(inbox / ".lock", seconds=_BUSY_SECONDS, busy=busy)


def _look(
    intake: Intake,
    quiet_seconds: float,
    seen: Mapping[str, Sequence[int]],
    seconds: float,
    now: float,
) -> Taken:
    imported: list[ImportReport] = []
    refused: list[Refused] = []
    waiting: dict[str, list[int]] = {}
    begun, handled = time.monotonic(), 0
    for path, status in _candidates(intake.inbox):
        state = _waited(status, seen.get(path.name), now)
        ready = stat.S_ISLNK(status.st_mode) or _is_quiet(state, quiet_seconds, now)
        if not ready or (handled and time.monotonic() - begun > seconds):
            waiting[path.name] = state
            continue
        handled += 1
        try:
            reports, refusal = intake.take(path, now=now)
        except FileNotFoundError:
            continue  # whoever put it here has taken it back
        except OSError as error:
            reports, refusal = [], _stuck(path, error)
            waiting[path.name] = [*state[:3], int(now * 1000)]
        imported += reports
        refused += [refusal] if refusal else []
        if refusal is None and (left := _state(path)) is not None:
            waiting[path.name] = [*left, int(now * 1000)]
    return Taken(tuple(imported), tuple(refused), waiting)


def _candidates(inbox: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Plain files and links that may be meant for us, the longest unchanged first."""
    found = []
    with os.scandir(inbox) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                found.append((Path(entry.path), status))
    # Of two files of one symbol, the later one has the last word.
    yield from sorted(found, key=lambda each: (each[1].st_mtime_ns, each[0].name))


def _of(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns]


def _state(path: Path) -> list[int] | None:
    try:
        return _of(path.lstat())
    except FileNotFoundError:
        return None


def _waited(status: os.stat_result, seen: Sequence[int] | None, now: float) -> list[int]:
    """Size, time of change, and since when they are the same; a fourth: it could not be moved."""
    current, moment = _of(status), int(now * 1000)
    if seen is None or len(seen) < 3 or list(seen[:2]) != current:
        return [*current, moment]
    # A moment that lies ahead was taken before the clock was set back: counted from now.
    return [*current, *(min(int(when), moment) for when in seen[2:])]


def _is_quiet(state: Sequence[int], quiet_seconds: float, now: float) -> bool:
    elapsed = now - state[2] / 1000
    age = now - state[1] / 1e9
    if len(state) > 3 and now * 1000 - state[3] < _STUCK_MS:
        return False
    # Unchanged from look to look is enough where the file's own time lies in the future.
    return elapsed >= quiet_seconds and not 0 <= age < quiet_seconds


def _stuck(path: Path, error: OSError) -> Refused:
    """What is said of a file that was read but has to stay where it is."""
    return Refused(
        shown(path.name),
        f"{path} cannot be moved out of the inbox ({error}): see to the permissions of the folder "
        "and the room on the disk; it is tried again in an hour, or when it changes",
        path.parent / QUARANTINE / f"{shown(path.name)}{REPORT}",
    )


def free_path(folder: Path, name: str, now: pd.Timestamp) -> Path:
    """A path in `folder` for a file of this name, at which nothing lies and no report.

    A name that is taken gets the moment `now` (UTC) before its ending, and a number if need be.
    """
    plain = Path(_short(name))
    number, tried = 1, plain
    while any(os.path.lexists(folder / f"{tried}{ending}") for ending in ("", REPORT)):
        again = f"{now:%Y-%m-%dT%H%M%S}" + ("" if number == 1 else f"-{number}")
        tried = Path(f"{plain.stem}.{again}{plain.suffix}")
        number += 1
    return folder / tried


def _short(name: str) -> str:
    """A name that leaves room for what is added to it; its ending is kept."""
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    ending = Path(name).suffix[-16:]
    room = _LONGEST_NAME - len(os.fsencode(ending))
    return os.fsencode(name)[:room].decode("utf-8", errors="ignore") + ending


def shown(name: str) -> str:
    """A file's name as it can be printed, whatever bytes it is made of."""
    text = os.fsencode(name).decode("utf-8", errors="replace")
    return text if text.isprintable() else ascii(text)


def _report(
    path: Path, target: Path, imported: Sequence[ImportReport], refusals: Sequence[str], now: float
) -> str:
    when = f"{pd.Timestamp(now, unit='s'):%Y-%m-%d %H:%M:%S} UTC"
    lines = [f"{shown(path.name)}, taken from the inbox on {when}, was refused.", "", "Refused:"]
    lines += [f"  {line}" for refusal in refusals for line in refusal.splitlines()]
    if imported:
        lines += ["", "Imported from the same file, and not to be imported again:"]
        lines += [f"  {line}" for report in imported for line in str(report).splitlines()]
    else:
        lines += ["", "Nothing was imported from it; the stored bars are as before."]
    lines += [
        "",
        f"The file is {QUARANTINE}/{shown(target.name)} now. Put it right and move it back into",
        "the inbox, or remove it together with this report.",
    ]
    return os.fsencode("\n".join(lines) + "\n").decode("utf-8", errors="replace")


def _trace() -> str:
    return traceback.format_exc(limit=-8).rstrip()
