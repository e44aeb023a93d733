"""Where stocks stand: a real instance and store, and records of results that nothing computed."""

from __future__ import annotations

import json
import os
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from retrain_assets import cli
from retrain_assets.defs.partitions import partition_key
from retrain_assets.defs.states import Live, RunState, StockState, pending_summaries, stock_states
from retrain_assets.files import write_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets.universe import Universe
from retrain_assets_tests.finished import ran
from retrain_assets_tests.installed import MONTH, made_bars

# Monday evening in New York: the bars end with Monday's.
NOW = pd.Timestamp("2023-09-11 23:00", tz="UTC")


def seen(home: Home, symbol: str) -> str:
    """Hash of the bars that the month may see."""
    return content_hash(BarStore(home.market).read(symbol, until=pd.Timestamp("2023-08-31")))


def record(home: Home, asset: str, symbol: str, **fields: Any) -> None:
    write_json(home.assets / asset / MONTH / f"{symbol}.json", fields)


def retrained(home: Home, symbol: str) -> None:
    """Records as a retraining with one family leaves them, as far as they are looked at."""
    bars = seen(home, symbol)
    version = {"adapter": {"digest": "d1", "metrics": {}}}
    record(home, "market_bars", symbol, hash=bars)
    record(home, "baseline_metrics", symbol, bars_hash=bars)
    record(home, "kronos_adapter", symbol, bars_hash=bars, digest="d1", base="tiny")
    record(home, "kronos_params", symbol, bars_hash=bars, adapter="d1")
    candidates = {"kronos": {"version": version}}
    record(home, "comparison", symbol, bars_hash=bars, candidates=candidates)
    decided = {"kronos": {"candidate": version}}
    record(home, "champion", symbol, final=True, families=decided)


def states(home: Home, *symbols: str, now: pd.Timestamp = NOW) -> dict[str, StockState]:
    with dg.DagsterInstance.get() as instance:
        universe = Universe.load(home.universe)
        found = stock_states(instance, home, universe, MONTH, symbols, now=now)
    return {state.symbol: state for state in found}


def shown(stock: StockState) -> dict[str, str]:
    return {name: stage.state for name, stage in stock.stages.items()}


def test_what_is_done_missing_and_stale_is_told_by_asset(home: Home) -> None:
    retrained(home, "AAA")
    retrained(home, "BBB")
    record(home, "kronos_adapter", "BBB", bars_hash=seen(home, "BBB"), digest="d2", base="tiny")
    (home.assets / "champion" / MONTH / "BBB.json").unlink()
    found = states(home, "AAA", "BBB", "SHORT")
    assert set(shown(found["AAA"]).values()) == {"done"}
    assert set(shown(found["SHORT"]).values()) == {"missing"}
    assert {"toto_adapter", "kronos_adapter"} <= set(found["SHORT"].stages)
    assert shown(found["BBB"]) == dict.fromkeys(shown(found["AAA"]), "done") | {
        "kronos_params": "stale",
        "comparison": "stale",
        "champion": "missing",
    }
    assert found["BBB"].stages["kronos_params"].why == "searched with another adapter"
    assert found["BBB"].worst(["kronos_adapter", "comparison", "champion"]) == "stale"


def test_bars_up_to_the_cut_count_and_later_ones_do_not(home: Home) -> None:
    retrained(home, "AAA")
    store = BarStore(home.market)
    bars = store.read("AAA").copy()
    bars.loc[len(bars) - 1, "volume"] += 1
    store.write("AAA", bars, source="a later bar")
    assert set(shown(states(home, "AAA")["AAA"]).values()) == {"done"}
    bars.loc[0, "volume"] += 1
    store.write("AAA", bars, source="a bar that was seen")
    found = shown(states(home, "AAA")["AAA"])
    assert {name for name, state in found.items() if state == "done"} == {"champion"}
    assert {state for name, state in found.items() if name != "champion"} == {"stale"}


def test_closed_sessions_that_are_not_stored_are_counted(home: Home) -> None:
    assert states(home, "AAA")["AAA"].behind == 0
    tuesday_noon = pd.Timestamp("2023-09-12 16:00", tz="UTC")
    assert states(home, "AAA", now=tuesday_noon)["AAA"].behind == 0
    assert states(home, "AAA", now=tuesday_noon + pd.Timedelta(days=6))["AAA"].behind == 4


def test_months_without_bars_and_files_that_cannot_be_read_are_told(home: Home) -> None:
    BarStore(home.market).write("NONE", made_bars(40, seed=1, last="2023-07-31"), source="made")
    (home.market / "COIN.parquet").write_bytes(b"no Parquet")
    record(home, "kronos_adapter", "BBB")
    (home.assets / "kronos_adapter" / MONTH / "BBB.json").write_text("{")
    found = states(home, "NONE", "COIN", "BBB")
    assert (found["NONE"].month_is, found["NONE"].stages) == (None, {})
    assert "NONE has no bar in 2023-08" in (found["NONE"].note or "")
    assert (found["COIN"].last, found["COIN"].bars, found["COIN"].behind) == (None, 0, None)
    assert "no readable Parquet file" in (found["COIN"].note or "")
    assert "BBB.json is not valid JSON" in (found["BBB"].note or "")


def test_runs_that_failed_wait_or_are_under_way_are_told(home: Home) -> None:
    assert ran(home, "SHORT")["SHORT"].error
    key = partition_key("2023-09", "AAA")
    tags = {"dagster/partition": str(key), "dagster/partition/month": "2023-09"}
    with dg.DagsterInstance.get() as instance:
        waiting = dg.DagsterRun(job_name="retrain_stock", tags=tags)
        instance.add_run(waiting)
    found = states(home, "AAA", "SHORT")
    failed = found["SHORT"].stages["baseline_metrics"]
    assert (failed.state, found["SHORT"].stages["market_bars"].state) == ("failed", "done")
    assert "needs 316 bars, has 144" in (failed.why or "")
    assert found["SHORT"].stages["champion"].state == "missing"
    (run,) = found["AAA"].runs
    assert run == RunState(waiting.run_id, "2023-09", "queued", run.since)
    assert abs(run.since - pd.Timestamp.now(tz="UTC")) < pd.Timedelta(minutes=5)
    assert found["SHORT"].runs == ()


def test_summaries_that_are_older_than_a_result_are_pending(home: Home) -> None:
    assert pending_summaries(home, MONTH) == {}
    retrained(home, "AAA")
    waiting = pending_summaries(home, MONTH)
    assert set(waiting) == {
        "comparison_summary",
        "params_summary",
        "regression_report",
        "guide_files",
        "month_report",
    }
    assert all(waiting.values())
    for name in waiting:
        write_json(home.assets / name / f"{MONTH}.json", {})
    assert not any(pending_summaries(home, MONTH).values())
    newer = (home.assets / "comparison_summary" / f"{MONTH}.json").stat().st_mtime + 1
    os.utime(home.assets / "comparison" / MONTH / "AAA.json", (newer, newer))
    waiting = pending_summaries(home, MONTH)
    assert {name for name, old in waiting.items() if old} == {
        "comparison_summary",
        "regression_report",
        "month_report",
    }


def test_the_command_shows_a_row_a_stock_and_what_is_due(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    retrained(home, "AAA")
    record(home, "kronos_params", "AAA", bars_hash=seen(home, "AAA"), adapter="another")
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--month", MONTH])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    stages = ["done", "stale", "done", "done"]
    assert rows["AAA"][1] == "2023-09-11"
    assert rows["AAA"][3:] == ["final", *stages, "-"]
    assert rows["SHORT"][4:8] == ["missing"] * 4
    assert "AAA: kronos_params stale: searched with another adapter" in out
    assert "NONE, COIN: no bars" in out
    assert "Pending, older than what they sum up: comparison_summary" in out
    assert "Next by XNYS: " in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_holds_what_the_table_shows(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    from retrain_assets_tests.promoted import promote, untouched

    retrained(home, "AAA")
    champion = untouched(home, "kronos", "tiny", context=128)
    promote(home, "AAA", champion, champion)
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--stocks", "AAA", "--month", MONTH, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (ended.value.code, told["exit_code"], told["command"]) == (0, 0, "status")
    (stock,) = told["stocks"].values()
    assert (stock["bars"], stock["last"], stock["month_is"]) == (406, "2023-09-11", "final")
    assert stock["stages"]["comparison"] == {"state": "done", "why": None}
    assert stock["live"] == {"in_production": "kronos", "month": MONTH, "since": MONTH}
    assert set(told["summaries"].values()) == {"pending"}
    assert set(told["due"]) == {"XNYS"}
    assert states(home, "AAA")["AAA"].live == Live("kronos", MONTH, MONTH)


def test_an_unknown_stock_is_bad_input(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--stocks", "AAB", "--json"])
    out = capsys.readouterr().out
    assert ended.value.code == 2
    assert json.loads(out)["error"].startswith("AAB is not in the universe")
