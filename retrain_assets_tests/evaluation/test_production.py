"""The store of what is in production: order, whole files, writers side by side, kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation import production as production_module
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.files import read_json, write_json

ROOT = Path(__file__).parents[2]
KRONOS = Version("kronos", base="nano", fingerprint="f" * 64, context=256).to_json()


def record(month: str = "2023-08", symbol: str = "NVDA", **changes: Any) -> dict[str, Any]:
    """A champion record in which production points to Kronos."""
    return {
        "symbol": symbol,
        "month": month,
        "final": True,
        "live": True,
        "notes": [],
        "families": {"kronos": {"champion": KRONOS, "since": month}},
        "pointer": {"to": "kronos", "version": KRONOS, "since": month},
    } | changes


@pytest.fixture
def store(tmp_path: Path) -> ProductionStore:
    return ProductionStore(tmp_path / "production")


def everything(store: ProductionStore) -> dict[Path, bytes]:
    """All that lies below the store, beside its folder's locks."""
    files = (path for path in store.root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.suffix != ".lock"}


def test_what_is_put_into_production_is_read_back(store: ProductionStore) -> None:
    assert (store.live("NVDA"), store.symbols()) == (None, [])
    store.set_live(record())
    store.keep(record(symbol="AAPL"))
    assert store.live("NVDA") == record()
    assert store.live("AAPL") is None, "what is kept is not in force"
    assert store.symbols() == ["AAPL", "NVDA"]


def test_the_same_decision_taken_once_more_is_the_one_that_was_kept(store: ProductionStore) -> None:
    first = store.keep(record(decided_at="2023-09-01T00:00:00+00:00"))
    before = first.read_bytes()
    assert store.keep(record(decided_at="2023-09-02T00:00:00+00:00")) == first
    assert first.read_bytes() == before
    other = store.keep(record(notes=["other"]))
    assert store.keep(record()) not in (first, other), "only the newest can be the same one"


@pytest.mark.parametrize("stands", ["in force", "kept"])
def test_a_decision_taken_once_more_has_the_time_of_the_first(
    store: ProductionStore, stands: str
) -> None:
    first = record(decided_at="2023-09-01T00:00:00+00:00")
    again = record(decided_at="2023-09-02T00:00:00+00:00")
    assert store.as_taken(again) == again
    if stands == "in force":  # and killed before it was kept
        store.set_live(first)
    else:
        store.keep(first)
    assert store.as_taken(again) == first
    assert store.as_taken(again | {"notes": ["other"]}) == again | {"notes": ["other"]}


def test_an_earlier_month_never_takes_the_place_of_a_later_one(store: ProductionStore) -> None:
    store.set_live(record("2023-08"))
    with pytest.raises(
        BadInput, match=r"2023-08 is live for NVDA.*retrain rollback NVDA --to 2023-07"
    ):
        store.set_live(record("2023-07"))
    assert store.live("NVDA") == record("2023-08")
    store.set_live(record("2023-08", notes=["again"]))
    store.set_live(record("2024-01"))
    assert store.live("NVDA") == record("2024-01")
    store.set_live(record("2023-07", symbol="AAPL"))


@pytest.mark.parametrize("field", ["final", "live"])
def test_only_a_final_live_record_goes_into_production(store: ProductionStore, field: str) -> None:
    with pytest.raises(BadInput, match="not marked final and live"):
        store.set_live(record(**{field: False}))
    assert store.live("NVDA") is None


def test_every_decision_is_kept_in_the_order_it_was_taken(store: ProductionStore) -> None:
    taken = [record(m, notes=[str(i)]) for i, m in enumerate(["2023-08", "2023-06", "2023-08"])]
    files = [store.keep(one) for one in taken]
    assert [file.name for file in files] == [
        "000001_2023-08.json",
        "000002_2023-06.json",
        "000003_2023-08.json",
    ]
    assert store.decisions("NVDA") == taken
    assert store.decisions("AAPL") == []
    for i in range(4, 12):
        store.keep(record(notes=[str(i)]))
    assert [one["notes"] for one in store.decisions("NVDA")[3:]] == [[str(i)] for i in range(4, 12)]


def test_a_month_is_found_by_what_it_decided_last(store: ProductionStore) -> None:
    for month, final, note in [
        ("2023-06", True, "first"),
        ("2023-07", True, "second"),
        ("2023-06", True, "once more"),
        ("2023-08", False, "not over"),
    ]:
        store.keep(record(month, final=final, live=False, notes=[note]))
    assert store.months("NVDA") == ["2023-06", "2023-07"]
    assert store.months("NVDA", after="2023-06") == ["2023-07"]
    assert store.state_of("NVDA", "2023-06")["notes"] == ["once more"]
    with pytest.raises(BadInput, match=r"on NVDA in 2023-08: choose one of 2023-06, 2023-07"):
        store.state_of("NVDA", "2023-08")
    with pytest.raises(BadInput, match="no month was decided on yet"):
        store.state_of("AAPL", "2023-08")


def test_the_month_before_is_the_latest_that_was_decided(store: ProductionStore) -> None:
    for month, final in [
        ("2023-03", True),
        ("2023-06", True),
        ("2023-04", True),
        ("2023-07", False),
    ]:
        store.keep(record(month, final=final, live=False))
    store.keep(record("2023-06", live=False, notes=["once more"]))
    found = store.before("NVDA", "2023-09")
    assert found is not None
    assert (found["month"], found["notes"]) == ("2023-06", ["once more"])
    assert store.before("NVDA", "2023-06") == record("2023-04", live=False)
    assert store.before("NVDA", "2023-03") is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"month": "2023-13"}, "month"),
        ({"month": "../2023-08"}, "month"),
        ({"final": "yes"}, "final"),
        ({"live": 1}, "live"),
        ({"families": {"kronos": {"since": ""}}}, r"families\.kronos\.champion"),
        ({"families": {"kronos": {"champion": {}, "since": ""}}}, r"champion: .* lacks"),
        ({"pointer": {"to": "kronos", "version": KRONOS}}, r"pointer\.since"),
        ({"pointer": {"to": "toto", "version": KRONOS, "since": ""}}, "pointer names 'toto'"),
        ({"pointer": {"to": "naive", "version": KRONOS, "since": ""}}, "another family"),
    ],
)
def test_a_record_that_is_not_whole_is_refused_by_field(
    store: ProductionStore, changes: dict[str, Any], field: str
) -> None:
    damaged = record() | changes
    for write in (store.set_live, store.keep):
        with pytest.raises(BadInput, match=f"is no champion record, .*{field}"):
            write(damaged)
    assert everything(store) == {}
    path = store.root / "NVDA" / "live.json"
    write_json(path, damaged)
    with pytest.raises(BadInput, match=rf"live\.json is no .*{field}.*; remove it and materialize"):
        store.live("NVDA")


def test_a_damaged_file_is_named(store: ProductionStore) -> None:
    store.set_live(record())
    kept = store.keep(record())
    kept.write_text(kept.read_text()[:40])
    with pytest.raises(BadInput, match=r"000001_2023-08\.json is not valid JSON.*remove it"):
        store.decisions("NVDA")
    live = store.root / "NVDA" / "live.json"
    live.write_text("[]")
    with pytest.raises(BadInput, match=r"NVDA/live\.json is no champion record, all of it"):
        store.live("NVDA")
    with pytest.raises(BadInput, match=r"NVDA/live\.json"):
        store.set_live(record("2023-09"))
    write_json(live, record(symbol="AAPL"))
    with pytest.raises(BadInput, match="a record of AAPL, not of NVDA"):
        store.live("NVDA")


@pytest.mark.parametrize("symbol", ["../NVDA", "NV/DA", "..", "nvda", ""])
def test_no_symbol_leads_out_of_the_folder(store: ProductionStore, symbol: str) -> None:
    readers = (store.live, store.decisions, store.months)
    for call in (
        *readers,
        lambda s: store.state_of(s, "2023-08"),
        lambda s: store.lock(s).__enter__(),
    ):
        with pytest.raises(BadInput, match="no usable symbol"):
            call(symbol)
    for write in (store.set_live, store.keep):
        with pytest.raises(BadInput, match="no usable symbol"):
            write(record(symbol=symbol))
    assert not store.root.exists()


def test_readers_write_nothing(store: ProductionStore) -> None:
    for _ in range(2):
        assert (store.live("NVDA"), store.decisions("NVDA"), store.symbols()) == (None, [], [])
        assert store.before("NVDA", "2023-08") is None
        assert not store.root.exists()
    store.set_live(record())
    store.keep(record())
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    store.live("NVDA"), store.decisions("NVDA"), store.symbols(), store.months("NVDA")
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_what_lies_beside_the_records_is_not_read(store: ProductionStore) -> None:
    store.set_live(record())
    store.keep(record())
    for name in (".live.json.0123.partial", "decisions/.000002_2023-08.json.1.partial"):
        (store.root / "NVDA" / name).write_text("{")
    (store.root / "NVDA" / "decisions" / "notes.json").write_text("{")
    (store.root / "lost+found").mkdir()
    assert store.symbols() == ["NVDA"]
    assert store.live("NVDA") == record()
    assert store.decisions("NVDA") == [record()]


def test_a_holder_of_the_lock_may_write_and_others_wait(
    store: ProductionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production_module, "_LOCK_SECONDS", 0.05)
    refused = []

    def other() -> None:
        try:
            ProductionStore(store.root).keep(record(notes=["other"]))
        except BadInput as error:
            refused.append(str(error))

    with store.lock("NVDA"), store.lock("NVDA"):
        store.keep(record())
        store.set_live(record())
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        store.keep(record(symbol="AAPL"))
    assert "NVDA.lock is locked" in refused[0]
    assert store.decisions("NVDA") == [record()]
    other()
    assert len(store.decisions("NVDA")) == 2, "the lock is free again"


PROMOTING = """
import pathlib, sys
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets_tests.evaluation.test_production import record
store = ProductionStore(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    own = record(notes=[sys.argv[2], i, "x" * 20000])
    with store.lock("NVDA"):
        store.keep(own)
        store.set_live(own)
"""


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_promote_at_once_lose_nothing(store: ProductionStore) -> None:
    times = 40
    writers = [started(PROMOTING, str(store.root), name, str(times)) for name in "AB"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        live = store.live("NVDA")
        if live is not None:
            seen.add((*live["notes"][:2], len(live["notes"][2])))
    assert [writer.wait() for writer in writers] == [0, 0]
    assert {length for *_, length in seen} == {20000}, "never half a record"
    kept = [tuple(one["notes"][:2]) for one in store.decisions("NVDA")]
    assert sorted(kept) == [(name, i) for name in "AB" for i in range(times)]
    for name in "AB":
        own = [i for writer, i in kept if writer == name]
        assert own == sorted(own), "in the order they were taken"
    live = store.live("NVDA")
    assert live is not None
    assert tuple(live["notes"][:2]) == kept[-1], "the last to decide is in force"


STALLING = """
import pathlib, sys, time
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets_tests.evaluation.test_production import record
def stall(self, target):
    print("written", flush=True)
    time.sleep(60)
store = ProductionStore(pathlib.Path(sys.argv[1]))
pathlib.Path.replace = stall
getattr(store, sys.argv[2])(record("2023-09", notes=["never"]))
"""


@pytest.mark.parametrize("method", ["set_live", "keep"])
def test_a_kill_in_the_middle_of_writing_changes_nothing(
    store: ProductionStore, method: str
) -> None:
    store.set_live(record())
    store.keep(record())
    child = started(STALLING, str(store.root), method)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert any(path.suffix == ".partial" for path in everything(store)), "it was killed in between"
    assert store.live("NVDA") == record()
    assert store.decisions("NVDA") == [record()]
    begun = time.monotonic()
    store.keep(record("2023-09"))
    store.set_live(record("2023-09"))
    assert time.monotonic() - begun < 5, "the lock died with its holder"
    assert store.live("NVDA") == record("2023-09")
    assert store.decisions("NVDA") == [record(), record("2023-09")]


def test_production_may_point_to_naive(store: ProductionStore) -> None:
    pointer = {"to": "naive", "version": NAIVE_VERSION.to_json(), "since": ""}
    store.set_live(record(pointer=pointer, families={}))
    assert read_json(store.root / "NVDA" / "live.json")["pointer"] == pointer
