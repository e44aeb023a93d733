"""New bars: what was appended to the store, dropped into the inbox, or is a symbol of its own."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import dagster as dg
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from retrain_assets.defs.partitions import partition_key, stock
from retrain_assets.defs.requests import (
    LeftOut,
    first_month,
    last_requested_bars,
    read_store,
    retrain_request,
    short_hash,
    shortened,
    too_few_bars,
    unfinished,
)
from retrain_assets.defs.resources import Reports
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore, StoredBars
from retrain_assets.market.calendar import month_end
from retrain_assets.universe import Universe

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

NEW_BARS = "new_bars"
_SECONDS = 30


def build_new_bars(job: "UnresolvedAssetJobDefinition") -> dg.SensorDefinition:
    """The sensor that asks for the running month of every stock with new bars."""

    @dg.sensor(
        name=NEW_BARS,
        job=job,
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Takes in the files that lie in the inbox, then retrains every active stock whose "
            "stored bars have changed, for the month of its last bar: once for each state of its "
            "bars, and never while a run of that month and stock is under way. A symbol that is "
            "new becomes a partition. On its first look it takes note of what is stored and asks "
            "for nothing but what the inbox brings."
        ),
    )
    def new_bars(context: dg.SensorEvaluationContext, reports: Reports) -> dg.SensorResult:
        home = reports.place()
        look = _Look(home, Universe.load(home.universe), context)
        known = look.known()
        waiting = look.take_in(known.waiting)
        requests, after = look.requests(known.bars)
        new = look.new_symbols()
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[stock.build_add_request(new)] if new else [],
            cursor=Cursor(bars=after, waiting=waiting).model_dump_json(),
            skip_reason=None if requests else dg.SkipReason("; ".join(look.told)),
        )

    return new_bars


class Cursor(BaseModel):
    """What a look leaves to the next.

    bars: short content hash by symbol, as of the last request or as it was found. waiting: files
    of the inbox that were not ready, see `take_in`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    bars: dict[str, str]
    waiting: dict[str, list[int]] = {}


class _Look:
    """One look at inbox and store; `told` collects what there is to say."""

    def __init__(self, home: Home, universe: Universe, context: dg.SensorEvaluationContext) -> None:
        self._home, self._universe, self._context = home, universe, context
        self._store = BarStore(home.market)
        self._stored: dict[str, StoredBars] = {}
        self.told: list[str] = []

    def known(self) -> Cursor:
        """What the look before left, or what takes its place where there is none to be had."""
        text = self._context.cursor
        if text:
            try:
                return Cursor.model_validate_json(text)
            except ValidationError as error:
                return self._healed(error)
        bars = self._now()
        self._say(f"first look: {len(bars)} stocks are stored, and nothing is asked for them")
        return Cursor(bars=bars)

    def take_in(self, seen: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Import what lies in the inbox; returns the files that have to wait."""
        from retrain_assets.market.inbox import take_in

        universe, rules = self._universe, self._universe.operation.inbox
        taken = take_in(
            self._home.inbox,
            self._store,
            calendar_of=universe.calendar_of,
            aliases=universe.aliases,
            quiet_seconds=rules.quiet_seconds,
            largest_mb=rules.largest_mb,
            seen=seen,
        )
        for report in taken.imported:
            self._say(str(report))
        for refused in taken.refused:
            self._context.log.warning(f"refused: {refused}")
            self.told.append(f"{refused.name} was refused, see {refused.report}")
        if taken.waiting:
            self._say(f"not taken from the inbox yet: {shortened(sorted(taken.waiting))}")
        return taken.waiting

    def requests(self, known: Mapping[str, str]) -> tuple[list[dg.RunRequest], dict[str, str]]:
        """What to ask for, and the hashes that count as known from now on.

        Of stocks that are being retrained, cannot be read or have gone, what was known stays.
        """
        self._stored, broken = read_store(self._store)
        left_out = LeftOut()
        for symbol, error in broken.items():
            left_out.add(error, symbol)
        changed = [s for s, bars in self._stored.items() if known.get(s) != short_hash(bars)]
        busy = unfinished(self._context.instance) if changed else set()
        found, after = [], dict(known)
        for symbol in changed:
            bars = self._stored[symbol]
            month = f"{bars.last:%Y-%m}"
            if str(partition_key(month, symbol)) in busy:
                left_out.add(f"{month} is being retrained, so its new bars wait", symbol)
                continue
            after[symbol] = short_hash(bars)
            try:
                if why := self._why_not(symbol, month, bars):
                    left_out.add(f"new bars, but {why}", symbol)
                else:
                    found.append(self._request(symbol, month, bars))
            except BadInput as unknown:  # its calendar
                left_out.add(str(unknown), symbol)
        for line in left_out.lines():
            self._say(line)
        if not found and not changed:
            self.told.append("no new bars")
        return found, after

    def new_symbols(self) -> list[str]:
        """Stored symbols that are no partition yet."""
        return sorted(
            set(self._stored) - set(self._context.instance.get_dynamic_partitions("stock"))
        )

    def _request(self, symbol: str, month: str, bars: StoredBars) -> dg.RunRequest:
        calendar = self._universe.stock(symbol, stored=[symbol]).calendar
        final = bars.last >= month_end(calendar, month).last_session
        key = f"{symbol}@{short_hash(bars)}"
        return retrain_request(month, symbol, bars, run_key=key, final=final)

    def _why_not(self, symbol: str, month: str, bars: StoredBars) -> str | None:
        """Why new bars lead to nothing, None if they do."""
        listed = self._universe.stock(symbol, stored=[symbol])
        if not listed.active:
            return "not active"
        if month < (first := first_month(self._universe)):
            return f"{month} lies before {first}, the first month"
        if month > f"{pd.Timestamp.now('UTC'):%Y-%m}":
            return f"{month} lies in the future: is the clock of this machine right?"
        return too_few_bars(listed, bars.bars)

    def _healed(self, error: ValidationError) -> Cursor:
        """Known hashes from the run history; a stock that never had a run begins as it is."""
        bars = self._now()
        asked = last_requested_bars(self._context.instance, bars)
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "its text"
        self._context.log.warning(
            f"the cursor was made anew from the run history ({where}: {problem['msg']}): "
            f"{len(asked)} stocks have runs, {len(bars) - len(asked)} begin as they are stored now"
        )
        self.told.append("the cursor was unusable and was made anew from the run history")
        return Cursor(bars=bars | asked)

    def _now(self) -> dict[str, str]:
        stored, _ = read_store(self._store)
        return {symbol: short_hash(bars) for symbol, bars in stored.items()}

    def _say(self, text: str) -> None:
        self._context.log.info(text)
        self.told.append(text)
