"""The month's end: every stock is retrained once its month is final, and asked for once.

Hours and dates come from the tick and from the exchanges' calendars, never from the clock of the
machine, so a tick that is late, repeated or tested in the pages finds the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from retrain_assets.defs.partitions import month_and_symbol, register_stocks
from retrain_assets.defs.requests import (
    LeftOut,
    first_month,
    read_store,
    requested_final,
    retrain_request,
    too_few_bars,
)
from retrain_assets.defs.resources import Reports
from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BarStore, StoredBars
from retrain_assets.market.calendar import MonthEnd, last_closed_month, month_after, month_end, zone
from retrain_assets.operation import Schedule
from retrain_assets.universe import Stock, Universe

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

MONTH_END = "month_end"
_MONTHS = {"month": 1, "quarter": 3}


def build_month_end(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """The schedule that asks for the months that have become final."""

    @dg.schedule(
        name=MONTH_END,
        job=job,
        cron_schedule="0 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "Retrains every active stock once its month is final: the month's last session by the "
            "stock's own calendar has closed, `operation.schedule.delay_hours` of universe.yaml "
            "have passed, and its bar is stored. Looks every hour, asks for each month and stock "
            "once, and makes up for the time it was off. With `every: quarter` only for March, "
            "June, September and December."
        ),
    )
    def month_end_schedule(
        context: dg.ScheduleEvaluationContext, reports: Reports
    ) -> list[dg.RunRequest] | dg.SkipReason:
        home = reports.place()
        universe = Universe.load(home.universe)
        moment = pd.Timestamp(context.scheduled_execution_time).tz_convert("UTC")
        tick = _Tick(universe, BarStore(home.market), moment)
        requests = tick.requests(context.instance)
        for line in tick.left_out.lines():
            context.log.info(line)
        if requests:
            _register_new(context.instance, requests)
            return requests
        return dg.SkipReason(tick.told())

    return month_end_schedule


def _register_new(instance: dg.DagsterInstance, requests: Sequence[dg.RunRequest]) -> None:
    """Make partitions of stocks that are none yet, without which a run of theirs is refused."""
    asked = {month_and_symbol(str(request.partition_key))[1] for request in requests}
    if new := asked - set(instance.get_dynamic_partitions("stock")):
        register_stocks(instance, new)


@dataclass(frozen=True)
class Due:
    """What is due by one calendar at some moment.

    end: the month's. following: the next one, and when it is due.
    """

    end: MonthEnd
    following: MonthEnd
    at: pd.Timestamp

    @classmethod
    def by(cls, calendar: str, moment: pd.Timestamp, schedule: Schedule) -> "Due":
        """The latest month that is due at a tz-aware moment; raises BadInput for a calendar that
        is not known."""
        delay, step = pd.Timedelta(hours=schedule.delay_hours), _MONTHS[schedule.every]
        end = last_closed_month(calendar, moment, delay=delay, step=step)
        following = month_end(calendar, month_after(end.month, step))
        return cls(end, following, (following.close + delay).tz_convert(zone(calendar)))


class _Tick:
    """One look at all stocks."""

    def __init__(self, universe: Universe, store: BarStore, moment: pd.Timestamp) -> None:
        self._universe, self._store, self._moment = universe, store, moment
        self._due: dict[str, Due] = {}
        self.left_out = LeftOut()

    def requests(self, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
        """A request for every stock whose month is final and was not asked for."""
        stored, broken = read_store(self._store)
        for symbol, error in broken.items():
            self.left_out.add(error, symbol)
        stocks = self._with_a_month(stored)
        months = {self._due[stock.calendar].end.month for stock in stocks.values()}
        asked = requested_final(instance, months)
        found = []
        for symbol, stock in stocks.items():
            end = self._due[stock.calendar].end
            if symbol in asked[end.month]:
                self.left_out.add(f"{end.month} was asked for", symbol)
            elif why := self._not_yet(symbol, stock, stored[symbol], end):
                self.left_out.add(why, symbol)
            else:
                key = f"{symbol}@{end.month}"
                found.append(
                    retrain_request(end.month, symbol, stored[symbol], run_key=key, final=True)
                )
        return found

    def told(self) -> str:
        """Why nothing is asked for, and when the next month is due."""
        lines = self.left_out.lines() or ["no bars are stored: import some (`retrain import FILE`)"]
        for calendar, due in sorted(self._due.items()):
            lines.append(
                f"next by {calendar}: {due.following.month}, due {due.at:%Y-%m-%d %H:%M %Z}"
            )
        return "; ".join(lines)

    def _with_a_month(self, stored: Mapping[str, StoredBars]) -> dict[str, Stock]:
        """The active stocks for which some month is due."""
        found = {}
        first = first_month(self._universe)
        for symbol in stored:
            stock = self._universe.stock(symbol, stored=[symbol])
            if not stock.active:
                self.left_out.add("not active", symbol)
                continue
            try:
                due = self._of_calendar(stock.calendar)
            except BadInput as error:
                self.left_out.add(str(error), symbol)
                continue
            if due.end.month < first:
                self.left_out.add(f"{due.end.month} lies before {first}, the first month", symbol)
            else:
                found[symbol] = stock
        return found

    def _of_calendar(self, calendar: str) -> "Due":
        if calendar not in self._due:
            schedule = self._universe.operation.schedule
            self._due[calendar] = Due.by(calendar, self._moment, schedule)
        return self._due[calendar]

    def _not_yet(self, symbol: str, stock: Stock, bars: StoredBars, end: MonthEnd) -> str | None:
        """Why a month that is due cannot be asked for yet, None if it can."""
        if bars.last < end.last_session:
            return (
                f"{end.month} is due and waits for the bar of {end.last_session:%Y-%m-%d} (import "
                "newer bars, or have them fetched with `operation.feed`)"
            )
        count = bars.bars
        if f"{bars.last:%Y-%m}" != end.month:
            try:
                sessions = self._store.sessions(symbol)
            except (BadInput, OSError) as error:
                return str(error)
            month = sessions.strftime("%Y-%m")
            if end.month not in month:
                return f"no bar in {end.month}"
            count = int((month <= end.month).sum())
        return too_few_bars(stock, count)
