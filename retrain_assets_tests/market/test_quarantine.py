"""What is no price file ends in quarantine, with a report, whatever it is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from retrain_assets.market import inbox as module
from retrain_assets.market.bars import BarStore
from retrain_assets.market.inbox import Taken
from retrain_assets_tests.market.dropped import NOON, aged, dropped, lies, look
from retrain_assets_tests.market.made import csv, walk


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
