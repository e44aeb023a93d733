"""What the universe wants fetched: its feed, and the stocks that lack a closed session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrain_assets.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from retrain_assets.home import Home
    from retrain_assets.market.feeds import Instrument
    from retrain_assets.market.fetching import Due
    from retrain_assets.operation import Feed
    from retrain_assets.universe import Stock, Universe

NO_FEED = (
    "no feed is configured, so nothing is fetched: name one in universe.yaml, such as "
    "`operation: {feed: {source: yahoo}}`"
)


def configured(universe: Universe) -> Feed:
    """What the universe says of its feed; raises BadInput if it names none."""
    if universe.operation.feed is None:
        raise BadInput(NO_FEED)
    return universe.operation.feed


def due_stocks(
    home: Home, universe: Universe, names: Sequence[str] = (), *, now: pd.Timestamp
) -> tuple[list[Due], dict[str, str]]:
    """Stocks that lack a closed session: the active ones, or those that are named.

    Returns also, by symbol, why one cannot be looked at. Raises BadInput for a name that is not
    known, and where no feed is configured.
    """
    from retrain_assets.market.bars import BarStore
    from retrain_assets.market.fetching import due

    feed, store = configured(universe), BarStore(home.market)
    named = [universe.stock(name, stored=store.symbols()) for name in names]
    return due(
        map(_instrument, named or [stock for stock in universe.stocks if stock.active]),
        store,
        delay_hours=feed.delay_hours,
        overlap_sessions=feed.overlap_sessions,
        now=now,
    )


def _instrument(stock: Stock) -> Instrument:
    from retrain_assets.market.feeds import Instrument

    return Instrument(stock.symbol, stock.calendar, stock.aliases)
