"""Fetching bars: the job that does it, and the sensor that asks for it when sessions have closed.

A tick may take a minute at most and a vendor may take longer, so fetching is a run of its own.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from pydantic import Field, TypeAdapter, ValidationError

from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.requests import UNFINISHED, shortened
from retrain_assets.defs.resources import Reports
from retrain_assets.fetching import NO_FEED, configured, due_stocks
from retrain_assets.market.bars import BarStore
from retrain_assets.universe import Universe

if TYPE_CHECKING:
    from retrain_assets.market.fetching import Due, Outcome

FETCH_BARS = "fetch_bars"
FETCH_BARS_WHEN_DUE = "fetch_bars_when_due"
FETCH_TAG = "retrain/fetch"
"""Tag of a run that fetches: the feed. Such a run retrains nothing."""

_SECONDS = 600
# Asked for again after a try that brought nothing: every hour at first, then less often.
_SPACINGS = ((6, 1), (14 * 24, 6))
_SPACING = 24
_Cursor = TypeAdapter(dict[str, str])


class FetchConfig(dg.Config):
    """Which stocks to look at."""

    stocks: list[str] = Field(
        default=[], description="Symbols; every active stock of the universe if it is empty."
    )


@dg.op(out=dg.Out(dg.Nothing))
def fetch_missing_bars(
    context: dg.OpExecutionContext, config: FetchConfig, reports: Reports
) -> None:
    """Bars that are missing of the last closed session, as files in the inbox.

    One stock's failure never stops another; the run fails if all did.
    """
    from retrain_assets.market.feeds import feed
    from retrain_assets.market.fetching import fetch_all

    home = reports.place()
    with failing_plainly():
        universe = Universe.load(home.universe)
        source = feed(configured(universe).source)
        wanted, failed = due_stocks(home, universe, config.stocks, now=pd.Timestamp.now("UTC"))
    outcome = fetch_all(
        wanted, source, BarStore(home.market), home.inbox, told=lambda line: context.log.info(line)
    )
    outcome.failed.update(failed)
    metadata = _metadata(source.title, outcome)
    if outcome.failed:
        told = f"could not be fetched: {shortened(sorted(outcome.failed))}"
        if not outcome.fetched:
            raise dg.Failure(told, metadata=metadata, allow_retries=False)
        context.log.warning(told)
    context.add_output_metadata(metadata)


@dg.job(
    name=FETCH_BARS,
    executor_def=dg.in_process_executor,
    description=(
        "Fetches bars of sessions that have closed and are not stored, and drops them into the "
        "inbox, from which the sensor new_bars takes them in."
    ),
)
def fetch_bars() -> None:
    """Fetch what is missing."""
    fetch_missing_bars()


@dg.sensor(
    name=FETCH_BARS_WHEN_DUE,
    job=fetch_bars,
    minimum_interval_seconds=_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Fetches the bars of every active stock whose last session has closed, "
        "`operation.feed.delay_hours` of universe.yaml ago, and is not stored. What a try does not "
        "bring is asked for again: every hour at first, every six hours later, every day after "
        "two weeks. Without `operation.feed` it does nothing."
    ),
)
def fetch_bars_when_due(
    context: dg.SensorEvaluationContext, reports: Reports
) -> dg.SensorResult | dg.SkipReason:
    """Ask for one run over the stocks that are due."""
    home = reports.place()
    universe = Universe.load(home.universe)
    settings = universe.operation.feed
    if settings is None:
        return dg.SkipReason(NO_FEED)
    running = dg.RunsFilter(job_name=FETCH_BARS, statuses=UNFINISHED)
    if context.instance.get_run_records(running, limit=1):
        return dg.SkipReason("bars are being fetched, the next look comes after that")
    now = _now()
    wanted, failed = due_stocks(home, universe, now=now)
    for symbol, why in failed.items():
        context.log.warning(f"{symbol} cannot be looked at: {why}")
    attempts = {each.symbol: _attempt(each, settings.delay_hours, now) for each in wanted}
    known = _known(context)
    asked = {
        symbol: attempt for symbol, attempt in attempts.items() if known.get(symbol) != attempt
    }
    if not asked:
        return dg.SkipReason(_nothing(attempts, failed))
    request = dg.RunRequest(
        run_key=_run_key(asked),
        run_config=dg.RunConfig(ops={fetch_missing_bars.name: FetchConfig(stocks=sorted(asked))}),
        tags={FETCH_TAG: settings.source},
    )
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(attempts, sort_keys=True))


def _now() -> pd.Timestamp:
    return pd.Timestamp.now("UTC")


def _attempt(wanted: "Due", delay_hours: float, now: pd.Timestamp) -> str:
    """Names a stock's state and the time for one try: the same until another try is due."""
    hours = (now - wanted.since(delay_hours=delay_hours)) / pd.Timedelta(hours=1)
    spacing = next((every for until, every in _SPACINGS if hours < until), _SPACING)
    return f"{wanted.session:%Y-%m-%d}, try of hour {int(hours // spacing) * spacing}"


def _known(context: dg.SensorEvaluationContext) -> dict[str, str]:
    """The tries that were asked for; a cursor that cannot be read is begun anew.

    Nothing is asked for twice by that: the run key of a try is always the same.
    """
    if not context.cursor:
        return {}
    try:
        return _Cursor.validate_json(context.cursor)
    except ValidationError:
        context.log.warning("the cursor could not be read and was begun anew")
        return {}


def _run_key(asked: Mapping[str, str]) -> str:
    text = json.dumps(asked, sort_keys=True)
    return f"fetch-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _nothing(attempts: Mapping[str, str], failed: Mapping[str, str]) -> str:
    parts = []
    if attempts:
        parts.append(f"asked for, and to be tried again later: {shortened(sorted(attempts))}")
    if failed:
        parts.append(f"cannot be looked at: {shortened(sorted(failed))}")
    return "; ".join(parts) or "the last closed session of every active stock is stored"


def _metadata(title: str, outcome: "Outcome") -> dict[str, dg.MetadataValue]:
    rows = [
        *((symbol, "failed", why) for symbol, why in outcome.failed.items()),
        *((symbol, "fetched", str(each)) for symbol, each in outcome.fetched.items()),
    ]
    records = [dg.TableRecord({"stock": s, "result": r, "what": w}) for s, r, w in sorted(rows)]
    schema = dg.TableSchema([dg.TableColumn(name) for name in ("stock", "result", "what")])
    return {
        "feed": dg.MetadataValue.text(title),
        "fetched": dg.MetadataValue.int(len(outcome.fetched)),
        "failed": dg.MetadataValue.int(len(outcome.failed)),
        "stocks": dg.MetadataValue.table(records, schema=schema),
    }
