"""The inbox: what is taken and when, what is left alone, and what becomes of refused files."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.market import inbox as module
from retrain_assets.market.bars import BarStore
from retrain_assets.market.inbox import Taken, holding
from retrain_assets_tests.market.dropped import NOON, aged, dropped, lies, look
from retrain_assets_tests.market.made import csv, same, walk


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
