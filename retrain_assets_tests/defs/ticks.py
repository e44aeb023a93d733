"""Ticks of the schedule and the sensors, as the daemon makes them, against an instance on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml

from retrain_assets.definitions import RETRAIN_STOCK, build_definitions
from retrain_assets.defs.resources import Reports
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.market.calendar import sessions

ENOUGH = 420  # bars that suffice for a split


def bars_to(
    last: str, *, count: int = ENOUGH, calendar: str = "XNYS", level: float = 100.0
) -> pd.DataFrame:
    """A rising series on the sessions of a calendar up to a date."""
    end = pd.Timestamp(last)
    days = sessions(calendar, end - pd.Timedelta(days=2 * count), end)[-count:]
    close = level + np.arange(count) / 100
    values = {"open": close, "high": close + 1, "low": close - 1, "close": close}
    return pd.DataFrame({"session": days, **values, "volume": np.full(count, 1e6)})


def keep(home: Home, symbol: str, last: str, **options: Any) -> str:
    """Store bars of a symbol up to a date, in place of what is there; returns their short hash."""
    return BarStore(home.market).write(symbol, bars_to(last, **options), source="made")[:12]


def list_stocks(home: Home, *stocks: dict[str, Any] | str, **operation: Any) -> None:
    """Write universe.yaml anew, with stocks by symbol or in full, and empty the bar store."""
    for file in home.market.glob("*.parquet"):
        file.unlink()
    listed = [stock if isinstance(stock, dict) else {"symbol": stock} for stock in stocks]
    content = {"first_month": "2015-01", "stocks": listed, "operation": operation}
    home.universe.write_text(yaml.safe_dump(content), encoding="utf-8")


@dataclass(frozen=True)
class Ticked:
    """What came of a tick: requests by symbol, or a message; the cursor and the new symbols."""

    requests: dict[str, dg.RunRequest]
    message: str | None
    cursor: str | None = None
    added: list[str] = field(default_factory=list)

    @property
    def months(self) -> dict[str, str]:
        """The month that is asked for, by symbol."""
        return {symbol: month_of(request) for symbol, request in self.requests.items()}


def month_of(request: dg.RunRequest) -> str:
    """The month of a request."""
    return str(request.partition_key).split("|")[0]


class Daemon:
    """Makes ticks over one data folder; `defs` may be those of another, which cost a while."""

    def __init__(self, home: Home, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._home, self._defs, self.instance = home, defs, instance
        self._reports = Reports(root=str(home.results), home=str(home.root))

    def schedule(self, at: str | pd.Timestamp, name: str = "month_end") -> Ticked:
        """A tick of a schedule at a moment (UTC if it does not say)."""
        moment = pd.Timestamp(at)
        moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
        context = dg.build_schedule_context(
            scheduled_execution_time=moment.to_pydatetime(), **self._given()
        )
        with context:
            data = self._defs.resolve_schedule_def(name).evaluate_tick(context)
        return Ticked(_by_symbol(data.run_requests), data.skip_message)

    def sensor(self, cursor: str | None = None, name: str = "new_bars") -> Ticked:
        """A tick of a sensor; symbols that it adds are added."""
        context = dg.build_sensor_context(cursor=cursor, **self._given())
        with context:
            data = self._defs.resolve_sensor_def(name).evaluate_tick(context)
        added = [key for r in data.dynamic_partitions_requests or [] for key in r.partition_keys]
        self.instance.add_dynamic_partitions("stock", added)
        return Ticked(_by_symbol(data.run_requests), data.skip_message, data.cursor, added)

    def launch(
        self, ticked: Ticked, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS
    ) -> list[dg.DagsterRun]:
        """Record runs of what a tick asked for."""
        return [
            self.instance.add_run(dg.DagsterRun(RETRAIN_STOCK, tags=request.tags, status=status))
            for request in ticked.requests.values()
        ]

    def _given(self) -> dict[str, Any]:
        return {
            "instance": self.instance,
            "instance_ref": self.instance.get_ref(),
            "repository_def": self._defs.get_repository_def(),
            "resources": {"reports": self._reports},
        }


@pytest.fixture(scope="module")
def location(template: Path) -> dg.Definitions:
    """The code location over a template, to be used for copies of it."""
    return build_definitions(Home(template))


@pytest.fixture
def daemon(home: Home, location: dg.Definitions) -> Iterator[Daemon]:
    """Ticks over an installation of one's own."""
    with dg.DagsterInstance.get() as instance:
        yield Daemon(home, location, instance)


def _by_symbol(requests: Any) -> dict[str, dg.RunRequest]:
    found = {str(request.partition_key).split("|")[1]: request for request in requests or []}
    assert len(found) == len(requests or []), "a stock was asked for twice"
    return found
