"""What schedule and sensors ask for: one stock's retraining, and what has been asked for before.

Run tags are the memory: what was requested is read from the run history, so that a daemon that
was down, a tick that is repeated and a cursor that is lost ask for nothing twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import dagster as dg

from retrain_assets.defs.partitions import month, month_and_symbol, month_stock, partition_key
from retrain_assets.errors import RetrainError
from retrain_assets.market.bars import BarStore, StoredBars
from retrain_assets.universe import Stock, Universe

FINAL_TAG = "retrain/final"
"""Tag of a run: the month, which was final when it was requested."""
BARS_TAG = "retrain/bars"
"""Tag of a run: the beginning of the content hash of the history that was stored then."""
WORK_TAG = "retrain/work"
"""Tag of a run: digest of what was asked for, and of what it worked with."""

PARTITION_TAG = "dagster/partition"
MONTH_TAG = "dagster/partition/month"
STOCK_TAG = "dagster/partition/stock"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""States of a run that is under way, or may still begin by itself."""
_HASH_CHARACTERS = 12
_PAGE = 500
_HOLDOUT_DAYS = 7  # of a run that is asked for with its defaults
_SHOWN = 6


def short_hash(stored: StoredBars) -> str:
    """The content hash as tags and cursors carry it."""
    return stored.content_hash[:_HASH_CHARACTERS]


def retrain_request(
    of_month: str, symbol: str, stored: StoredBars, *, run_key: str, final: bool
) -> dg.RunRequest:
    """One run of `retrain_stock` with its defaults.

    stored: the history as it is now. final: whether the month's last session is stored.
    """
    key = partition_key(of_month, symbol)
    # With the partition's tags in place Dagster does not look up each stock by itself, which takes
    # seconds for some hundreds.
    tags = {**month_stock.get_tags_for_partition_key(key), BARS_TAG: short_hash(stored)}
    if final:
        tags[FINAL_TAG] = of_month
    return dg.RunRequest(run_key=run_key, partition_key=key, tags=tags)


def unfinished(instance: dg.DagsterInstance) -> set[str]:
    """Partition keys that have a run in the queue or under way."""
    records = instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    tags = (record.dagster_run.tags.get(PARTITION_TAG) for record in records)
    return {key for key in tags if key}


def requested_final(instance: dg.DagsterInstance, months: Collection[str]) -> dict[str, set[str]]:
    """By month the symbols for which a final run was requested, whatever came of it."""
    found: dict[str, set[str]] = {name: set() for name in months}
    if not found:
        return found
    for record in instance.get_run_records(dg.RunsFilter(tags={FINAL_TAG: sorted(found)})):
        tags = record.dagster_run.tags
        if PARTITION_TAG in tags:
            found[tags[FINAL_TAG]].add(month_and_symbol(tags[PARTITION_TAG])[1])
    return found


def last_requested_bars(instance: dg.DagsterInstance, symbols: Collection[str]) -> dict[str, str]:
    """The short hash that each symbol's newest run was requested with; none for those without."""
    found: dict[str, str] = {}
    left, cursor = set(symbols), None
    while left:
        page = instance.get_run_records(
            dg.RunsFilter(tags={STOCK_TAG: sorted(left)}), limit=_PAGE, cursor=cursor
        )
        for record in page:
            tags = record.dagster_run.tags
            if BARS_TAG in tags:
                found.setdefault(tags[STOCK_TAG], tags[BARS_TAG])
        if len(page) < _PAGE:
            break
        left -= set(found)
        cursor = page[-1].dagster_run.run_id
    return found


def first_month(universe: Universe) -> str:
    """The earliest month that can be asked for.

    An earlier one that universe.yaml names by now becomes a partition when the code is reloaded.
    """
    return max(universe.first_month, f"{month.start:%Y-%m}")


def too_few_bars(stock: Stock, count: int) -> str | None:
    """Why a history of so many bars cannot be retrained on, None if it can."""
    from retrain_assets.training.policy import prediction_length
    from retrain_assets.training.splits import bars_needed

    horizon = prediction_length(count, stock.overrides)
    needed = bars_needed(horizon=horizon, holdout_days=_HOLDOUT_DAYS)
    return None if count >= needed else f"fewer than the {needed} bars that are needed"


def read_store(
    store: BarStore,
) -> tuple[dict[str, StoredBars], dict[str, str]]:
    """What is stored by symbol, and by symbol why a file cannot be read."""
    found: dict[str, StoredBars] = {}
    broken: dict[str, str] = {}
    for symbol in store.symbols():
        try:
            found[symbol] = store.stored(symbol)
        except (RetrainError, OSError) as error:
            broken[symbol] = str(error)
    return found, broken


def shortened(names: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


class LeftOut:
    """Stocks that are not asked for, by the reason why, for people to read."""

    def __init__(self) -> None:
        self._why: dict[str, list[str]] = {}

    def add(self, why: str, symbol: str) -> None:
        """Note one stock."""
        self._why.setdefault(why, []).append(symbol)

    def lines(self) -> list[str]:
        """One line a reason, with a few of the stocks by name."""
        return [f"{why}: {shortened(symbols)}" for why, symbols in self._why.items()]
