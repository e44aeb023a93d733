"""The inbox: what is taken and when, what is left alone, and what becomes of refused files."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market import inbox as module
from retrain_assets.market.bars import BarStore
from retrain_assets.market.inbox import Taken, holding, take_in
from retrain_assets_tests.market.made import csv, same, walk

# Long after every bar in these tests has closed.
NOON = 1_767_268_800.0


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """An empty inbox."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def look(
    inbox: Path, store: BarStore, seen: Mapping[str, Sequence[int]] | None = None, **options: Any
) -> Taken:
    """One look at noon, at which everything is ready that has an old time of change."""
    given = {
        **{"calendar_of": lambda _: "XNYS", "aliases": {}, "quiet_seconds": 0.0},
        **{"largest_mb": 1, "seen": seen or {}, "now": NOON},
    }
    return take_in(inbox, store, **{**given, **options})


def aged(path: Path, moment: float = NOON - 3600) -> Path:
    """Set when a file was changed."""
    os.utime(path, (moment, moment))
    return path


def dropped(inbox: Path, name: str = "NVDA.csv", count: int = 40) -> Path:
    """Bars in the inbox that were written an hour ago."""
    return aged(csv(inbox / name, walk(count)))


def lies(inbox: Path) -> list[str]:
    """Everything below the inbox but its lock, by path."""
    found = (p for p in inbox.rglob("*") if p.name != ".lock" and (p.is_symlink() or p.is_file()))
    return sorted(str(path.relative_to(inbox)) for path in found)


@pytest.mark.parametrize("ending", ["csv", "parquet", "CSV"])
def test_bars_are_taken_and_the_file_is_kept(inbox: Path, store: BarStore, ending: str) -> None:
    path = inbox / f"NVDA.{ending}"
    walk().to_parquet(path) if ending == "parquet" else csv(path, walk())
    aged(path)
    taken = look(inbox, store)
    assert [report.symbol for report in taken.imported] == ["NVDA"]
    assert (taken.refused, taken.waiting) == ((), {})
    assert same(store, walk())
    assert lies(inbox) == [f"imported/{path.name}"]


def test_an_inbox_that_is_missing_is_created(tmp_path: Path, store: BarStore) -> None:
    assert look(tmp_path / "a" / "inbox", store) == Taken((), (), {})
    assert (tmp_path / "a" / "inbox").is_dir()


@pytest.mark.parametrize(
    "name",
    [
        *(".NVDA.csv", "NVDA.csv.part", "NVDA.csv.partial", "NVDA.csv.tmp"),
        *("NVDA.csv.crdownload", "NVDA.csv.CRDOWNLOAD", "NVDA.csv~"),
    ],
)
def test_unfinished_files_are_left_alone(inbox: Path, store: BarStore, name: str) -> None:
    dropped(inbox, name)
    assert look(inbox, store) == Taken((), (), {})
    assert lies(inbox) == [name]


def test_folders_and_pipes_are_left_alone(inbox: Path, store: BarStore) -> None:
    (inbox / "more.csv").mkdir()
    dropped(inbox / "more.csv")
    os.mkfifo(inbox / "pipe.csv")
    assert look(inbox, store) == Taken((), (), {})


def test_a_file_waits_until_it_has_not_changed_for_a_while(inbox: Path, store: BarStore) -> None:
    path = aged(dropped(inbox, count=20), NOON)
    first = look(inbox, store, quiet_seconds=15, now=NOON + 1)
    assert first.waiting == {
        "NVDA.csv": [path.stat().st_size, path.stat().st_mtime_ns, int((NOON + 1) * 1000)]
    }
    # Written to between two looks: it waits from then on.
    aged(csv(path, walk(40)), NOON + 10)
    second = look(inbox, store, first.waiting, quiet_seconds=15, now=NOON + 17)
    assert second.imported == ()
    assert second.waiting["NVDA.csv"][2] == int((NOON + 17) * 1000)
    third = look(inbox, store, second.waiting, quiet_seconds=15, now=NOON + 31)
    assert third.waiting == second.waiting
    fourth = look(inbox, store, third.waiting, quiet_seconds=15, now=NOON + 32)
    assert [report.bars for report in fourth.imported] == [40]
    assert fourth.waiting == {}


def test_a_file_is_looked_at_twice_however_old_it_says_it_is(inbox: Path, store: BarStore) -> None:
    # Copying tools keep the time of the original, also while they copy.
    dropped(inbox)
    first = look(inbox, store, quiet_seconds=15)
    assert first.imported == ()
    assert len(look(inbox, store, first.waiting, quiet_seconds=15, now=NOON + 15).imported) == 1


def test_a_size_that_changes_under_the_same_time_is_seen(inbox: Path, store: BarStore) -> None:
    path = dropped(inbox, count=20)
    first = look(inbox, store, quiet_seconds=15)
    aged(csv(path, walk(40)))
    assert look(inbox, store, first.waiting, quiet_seconds=15, now=NOON + 60).imported == ()


@pytest.mark.parametrize("ahead", [10.0, 86400.0, 40 * 365 * 86400.0])
def test_a_time_that_lies_ahead_does_not_wait_for_ever(
    inbox: Path, store: BarStore, ahead: float
) -> None:
    aged(dropped(inbox), NOON + ahead)
    first = look(inbox, store, quiet_seconds=15)
    again = look(inbox, store, first.waiting, quiet_seconds=15, now=NOON + 60)
    assert len(again.imported) == 1


def test_a_clock_that_is_set_back_does_not_wait_for_ever(inbox: Path, store: BarStore) -> None:
    aged(dropped(inbox), NOON)
    first = look(inbox, store, quiet_seconds=15, now=NOON + 5)
    day_before = NOON - 86400
    second = look(inbox, store, first.waiting, quiet_seconds=15, now=day_before)
    assert second.imported == ()
    third = look(inbox, store, second.waiting, quiet_seconds=15, now=day_before + 15)
    assert len(third.imported) == 1


@pytest.mark.parametrize("to", ["file", "nothing", "folder"])
def test_links_are_never_followed(inbox: Path, store: BarStore, tmp_path: Path, to: str) -> None:
    target = tmp_path / "elsewhere.csv"
    if to == "file":
        csv(target, walk())
    elif to == "folder":
        target.mkdir()
    (inbox / "NVDA.csv").symlink_to(target)
    before = target.read_bytes() if to == "file" else None
    # A link is not written to, so there is nothing to wait for.
    (refused,) = look(inbox, store, quiet_seconds=15).refused
    assert "is a symbolic link and was not followed" in refused.error
    assert "put the file itself here" in refused.report.read_text("utf-8")
    assert (inbox / "quarantine" / "NVDA.csv").readlink() == target
    assert store.symbols() == []
    assert before is None or target.read_bytes() == before


def test_a_file_of_two_gigabytes_is_refused_unread(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (inbox / "NVDA.csv").open("wb") as file:
        file.truncate(2 * 2**30)
    aged(inbox / "NVDA.csv")
    monkeypatch.setattr(module, "import_files", lambda *_, **__: pytest.fail("it was read"))
    (refused,) = look(inbox, store, largest_mb=256).refused
    assert "has 2,048 MB and was not read, the largest that is taken has 256" in refused.error
    assert "raise operation.inbox.largest_mb in universe.yaml" in refused.error
    assert lies(inbox) == ["quarantine/NVDA.csv", "quarantine/NVDA.csv.report.txt"]


def test_what_is_no_price_file_is_quarantined_with_a_report(inbox: Path, store: BarStore) -> None:
    for name in ("notes.docx", "data_summary.csv", "broken.parquet", "NVDA"):
        (inbox / name).write_text("a,b\n1,2\n")
        aged(inbox / name)
    taken = look(inbox, store)
    errors = {refused.name: refused.error for refused in taken.refused}
    assert "is neither CSV nor Parquet" in errors["notes.docx"]
    assert "no column for date, open, high, low, close" in errors["data_summary.csv"]
    assert "is no readable Parquet file" in errors["broken.parquet"]
    assert "is neither CSV nor Parquet" in errors["NVDA"]
    assert sorted(path.name for path in (inbox / "quarantine").iterdir()) == sorted(
        name + ending for name in errors for ending in ("", ".report.txt")
    )


def test_a_report_says_when_what_where_and_what_to_do(inbox: Path, store: BarStore) -> None:
    good, bad = walk().assign(symbol="NVDA"), walk().assign(symbol="AMD")
    bad.loc[7, "high"] = bad.loc[7, "low"] / 2
    aged(csv(inbox / "two.csv", pd.concat([good, bad])))
    taken = look(inbox, store)
    assert [report.symbol for report in taken.imported] == ["NVDA"]
    (refused,) = taken.refused
    text = refused.report.read_text("utf-8")
    assert "two.csv, taken from the inbox on 2026-01-01 12:00:00 UTC, was refused." in text
    assert "AMD: refused\n" in text
    assert "      line 49 (2023-07-13), high: 49.39807083 is below the row's open" in text
    assert "Imported from the same file, and not to be imported again:\n  NVDA: 40 bars" in text
    assert "The file is quarantine/two.csv now." in text
    assert store.symbols() == ["NVDA"]


@pytest.mark.parametrize(
    "symbol", ["../../etc", "/etc/passwd", "..", "a/../../b", "NVDA/", "..\\..\\etc", "C:\\etc"]
)
def test_a_path_for_a_symbol_is_refused(
    inbox: Path, store: BarStore, tmp_path: Path, symbol: str
) -> None:
    aged(csv(inbox / "prices.csv", walk(), symbol=symbol))
    before = sorted(tmp_path.rglob("*"))
    (refused,) = look(inbox, store).refused
    assert "is no usable symbol" in refused.error
    assert store.symbols() == []
    # Nothing anywhere but in quarantine.
    new = set(tmp_path.rglob("*")) - set(before)
    assert all("inbox" in path.parts for path in new)


@pytest.mark.parametrize("name", ["..%2F..%2Fetc.csv", "....csv", "a b.csv", "-rf.csv", "é.csv"])
def test_a_name_that_is_no_symbol_is_refused(inbox: Path, store: BarStore, name: str) -> None:
    dropped(inbox, f"x{name}" if name.startswith(".") else name)
    (refused,) = look(inbox, store).refused
    assert "is no usable symbol" in refused.error


@pytest.mark.parametrize("name", [b"NV\xffDA.csv", b"NV\nDA.csv"])
def test_a_name_that_cannot_be_printed_is_refused(
    inbox: Path, store: BarStore, name: bytes
) -> None:
    dropped(inbox, os.fsdecode(name))
    (refused,) = look(inbox, store).refused
    assert "its name is no plain text; rename it" in refused.error
    assert refused.name.isprintable()
    refused.report.read_text("utf-8")
    assert store.symbols() == []


def test_quarantine_and_archive_never_overwrite(inbox: Path, store: BarStore) -> None:
    for number in range(3):
        aged((inbox / "bad.csv"), NOON - 99) if (inbox / "bad.csv").exists() else None
        (inbox / "bad.csv").write_text(f"a\n{number}\n")
        aged(inbox / "bad.csv")
        dropped(inbox, count=20 + number)
        look(inbox, store)
    names = ["bad.2026-01-01T120000-2.csv", "bad.2026-01-01T120000.csv", "bad.csv"]
    quarantine = inbox / "quarantine"
    assert sorted(path.name for path in quarantine.glob("*.csv")) == names
    assert {path.read_text() for path in quarantine.glob("*.csv")} == {
        f"a\n{number}\n" for number in range(3)
    }
    assert len(list(quarantine.glob("*.report.txt"))) == 3
    assert len(list((inbox / "imported").glob("NVDA*.csv"))) == 3


def test_a_name_of_the_greatest_length_has_room_for_its_report(
    inbox: Path, store: BarStore
) -> None:
    dropped(inbox, "n" * 251 + ".csv")
    (refused,) = look(inbox, store).refused
    assert refused.report.exists()
    assert list((inbox / "quarantine").glob("*.csv"))


def test_one_file_never_stops_another(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(inbox, "AMD.csv")
    dropped(inbox, "NVDA.csv")
    whole = module.import_files

    def failing(paths: list[Path], *rest: Any, **options: Any) -> Any:
        if paths[0].name == "AMD.csv":
            raise ZeroDivisionError("half-way")
        return whole(paths, *rest, **options)

    monkeypatch.setattr(module, "import_files", failing)
    taken = look(inbox, store)
    assert [report.symbol for report in taken.imported] == ["NVDA"]
    assert "ZeroDivisionError: half-way" in taken.refused[0].report.read_text("utf-8")
    assert lies(inbox)[-2:] == ["quarantine/AMD.csv", "quarantine/AMD.csv.report.txt"]
    assert look(inbox, store, taken.waiting) == Taken((), (), {})


def test_a_file_that_cannot_be_moved_is_told_once_an_hour(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(inbox)
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(full))
        first = look(inbox, store)
        assert "cannot be moved out of the inbox" in first.refused[0].error
        assert look(inbox, store, first.waiting, now=NOON + 3599) == Taken((), (), first.waiting)
        second = look(inbox, store, first.waiting, now=NOON + 3600)
        assert len(second.refused) == 1
    # It heals by itself, and what was imported already changes nothing.
    healed = look(inbox, store, second.waiting, now=NOON + 7200)
    assert [(report.added, report.changed) for report in healed.imported] == [(0, 0)]
    assert lies(inbox) == ["imported/NVDA.csv"]


def test_killed_between_import_and_move_it_is_taken_once_more(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(inbox)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            look(inbox, store)
    before = {path: path.read_bytes() for path in store.root.rglob("*.parquet")}
    assert len(before) == 1
    assert len(look(inbox, store).imported) == 1
    assert {path: path.read_bytes() for path in store.root.rglob("*.parquet")} == before
    assert lies(inbox) == ["imported/NVDA.csv"]


def test_a_file_that_changes_while_it_is_read_is_left(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dropped(inbox, count=20)
    whole = module.import_files

    def written_to(*rest: Any, **options: Any) -> Any:
        result = whole(*rest, **options)
        csv(path, walk(40))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(module, "import_files", written_to)
        taken = look(inbox, store)
    assert lies(inbox) == ["NVDA.csv"]
    aged(path)
    assert [report.bars for report in look(inbox, store, taken.waiting).imported] == [40]


def test_a_file_that_is_taken_back_is_no_error(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dropped(inbox)
    monkeypatch.setattr(module, "_is_quiet", lambda *_: path.unlink() or True)
    assert look(inbox, store) == Taken((), (), {})


def test_what_is_not_reached_in_time_waits(inbox: Path, store: BarStore) -> None:
    for number in range(3):
        aged(dropped(inbox, f"S{number}.csv"), NOON - 100 + number)
    first = look(inbox, store, seconds=0)
    assert [report.symbol for report in first.imported] == ["S0"]
    assert sorted(first.waiting) == ["S1.csv", "S2.csv"]
    second = look(inbox, store, first.waiting, seconds=0)
    assert [report.symbol for report in second.imported] == ["S1"]
    assert len(look(inbox, store, second.waiting).imported) == 1


def test_of_two_files_of_a_symbol_the_later_has_the_last_word(inbox: Path, store: BarStore) -> None:
    corrected = walk()
    corrected.loc[39, "close"] = corrected.loc[39, "low"]
    aged(csv(inbox / "a.csv", corrected, symbol="NVDA"), NOON - 10)
    aged(csv(inbox / "z.csv", walk(), symbol="NVDA"), NOON - 20)
    look(inbox, store)
    assert same(store, corrected)


def test_two_never_take_in_at_once(
    inbox: Path, store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(inbox)
    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.05)
    monkeypatch.setattr(module, "holding", lambda _: (_ for _ in ()).throw(BadInput("busy")))
    seen = {"NVDA.csv": [1, 2, 3]}
    assert look(inbox, store, seen) == Taken((), (), seen)
    assert lies(inbox) == ["NVDA.csv"]


def test_the_inbox_is_held_by_one_process(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(module, "_BUSY_SECONDS", 0.05)
    with (
        FileLock(inbox / ".lock", is_singleton=False),
        pytest.raises(BadInput, match="being taken in by another process"),
        holding(inbox),
    ):
        pass


@given(
    seen=st.none() | st.lists(st.integers(), max_size=5),
    changed=st.integers(0, 2 * 10**18),
    size=st.integers(0, 2),
    quiet=st.floats(0, 1000),
)
def test_whatever_was_seen_before_a_file_is_taken_in_the_end(
    seen: list[int] | None, changed: int, size: int, quiet: float
) -> None:
    status: Any = SimpleNamespace(st_size=size, st_mtime_ns=changed)
    if seen is not None:
        seen[:2] = [size, changed]
    for now in (NOON, NOON + 4000, NOON + 8000):
        seen = module._waited(status, seen, now)
        assert all(moment <= now * 1000 for moment in seen[2:])
        if module._is_quiet(seen, quiet, now):
            return
    raise AssertionError(seen)
