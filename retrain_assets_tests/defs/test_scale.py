"""Five hundred stocks over sixty months: what looks at all of them stays quick."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pandas as pd
import pytest
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._serdes import serialize_value

from retrain_assets.defs.partitions import month_stock, partition_key, register_stocks
from retrain_assets.defs.requests import BARS_TAG, FINAL_TAG
from retrain_assets.home import Home
from retrain_assets_tests.defs.ticks import Daemon, Ticked, keep, list_stocks
from retrain_assets_tests.ports import free_port
from retrain_assets_tests.servers import served

STOCKS = [f"S{number:03}" for number in range(500)]
MONTHS = [f"{month}" for month in pd.period_range("2018-10", "2023-09", freq="M")]
SECONDS = 5
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def many(home: Home) -> Home:
    """Bars of five hundred stocks: the same bytes, which is all that the footer tells."""
    list_stocks(home, *STOCKS)
    keep(home, STOCKS[0], "2023-09-29")
    for symbol in STOCKS[1:]:
        os.link(home.market / f"{STOCKS[0]}.parquet", home.market / f"{symbol}.parquet")
    return home


def quick(tick: Callable[[], Ticked]) -> Ticked:
    """A tick that takes less than its time: of the processor, since neighbours may be busy."""
    start = time.process_time()
    ticked = tick()
    assert time.process_time() - start < SECONDS
    return ticked


def test_ticks_are_quick(many: Home, daemon: Daemon) -> None:
    first = quick(daemon.sensor)
    assert first.requests == {}
    assert first.added == STOCKS
    assert quick(lambda: daemon.sensor(first.cursor)).message == "no new bars"
    changed = quick(lambda: daemon.sensor('{"version": 1, "bars": {}}'))
    assert set(changed.requests) == set(STOCKS)
    asked = quick(lambda: daemon.schedule("2023-10-02"))
    assert asked.months == dict.fromkeys(STOCKS, "2023-09")


@pytest.mark.long
def test_ticks_are_quick_with_a_long_history(many: Home, daemon: Daemon) -> None:
    remember(daemon.instance, MONTHS)
    assert "2023-09 was asked for" in (quick(lambda: daemon.schedule("2023-10-02")).message or "")
    due = quick(lambda: daemon.schedule("2023-09-05"))  # the same stocks, a month that was missed
    assert due.requests == {}
    quick(daemon.sensor)
    healed = quick(lambda: daemon.sensor("lost"))  # every hash in the history differs
    assert set(healed.requests) == set(STOCKS)


def remember(instance: dg.DagsterInstance, months: list[str]) -> None:
    """Put a final run of every stock and month into the history, past the slow way in."""
    runs, tags = [], []
    for month in months:
        for symbol in STOCKS:
            own = dict(month_stock.get_tags_for_partition_key(partition_key(month, symbol)))
            own |= {FINAL_TAG: month, BARS_TAG: "0" * 12}
            run = dg.DagsterRun(
                "retrain_stock",
                str(uuid4()),
                status=dg.DagsterRunStatus.SUCCESS,
                tags={key: str(value) for key, value in own.items()},
            )
            runs.append(
                {
                    "run_id": run.run_id,
                    "pipeline_name": run.job_name,
                    "status": run.status.value,
                    "run_body": serialize_value(run),
                    "partition": run.tags["dagster/partition"],
                }
            )
            tags += [{"run_id": run.run_id, "key": k, "value": v} for k, v in run.tags.items()]
    with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
        connection.execute(RunsTable.insert(), runs)
        connection.execute(RunTagsTable.insert(), tags)


@pytest.fixture
def pages(many: Home) -> Iterator[str]:
    """Dagster's pages over five hundred stocks and the last sixty months."""
    first = pd.Timestamp.now("UTC").tz_localize(None).to_period("M") - len(MONTHS) + 1
    settings = many.universe.read_text()
    many.universe.write_text(settings.replace("2015-01", str(first)))
    with dg.DagsterInstance.get() as instance:
        register_stocks(instance, STOCKS)
        for symbol in STOCKS[:20]:
            made = dg.AssetMaterialization(
                "market_bars", partition=partition_key(str(first), symbol)
            )
            instance.report_runless_asset_event(made)
    port = free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-w", str(many.dagster / "workspace.yaml")]
    address = f"http://127.0.0.1:{port}"
    with served(command, f"{address}/server_info"):
        yield address


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_partitions_page_opens(pages: str, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-background-networking", "--disable-gpu"),
        *(f"--user-data-dir={tmp_path}", "--window-size=1600,1200"),
        *("--virtual-time-budget=25000", "--dump-dom"),
        f"{pages}/assets/market_bars?view=partitions",
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    text = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL).split())
    (tmp_path / "page.txt").write_text(text)
    this_month = f"{pd.Timestamp.now('UTC'):%Y-%m}"
    for shown in ("Materialized (20)", this_month, STOCKS[0], STOCKS[9]):
        assert shown in text
