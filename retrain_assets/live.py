"""What is in production, ready to forecast: one call loads it, another forecasts.

    from retrain_assets import load_forecaster

    forecaster = load_forecaster("NVDA")
    path = forecaster.predict(bars, horizon=64)

Files are read and nothing is written. A champion whose files are gone or altered is an error;
naive does not quietly take its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.live_forecaster import MAX_AGE_SESSIONS, LiveForecaster
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import family as known_family
from retrain_assets.universe import Universe


def load_forecaster(
    symbol: str,
    family: str | None = None,
    *,
    home: str | Path | None = None,
    device: str = "cpu",
    max_age_sessions: int = MAX_AGE_SESSIONS,
    threads: int | None = 1,
) -> LiveForecaster:
    """Load what is in production for a symbol: adapter, base, parameters, and naive beside it.

    symbol: as in the universe or the bar store, or an alias, in either case. family: whose
    champion to load, or `naive`; left out, what was found best of all. home: the data folder,
    found as everywhere (see `Home.find`). device: cpu, cuda, cuda:N or mps. max_age_sessions:
    sessions that may be missing at the end of the bars to forecast from. threads: CPU threads of
    torch, set for the process when it forecasts; the pipeline computes with one, which on a busy
    machine is also the fastest for small models. None leaves the number as it is.

    A symbol for which nothing was promoted yet forecasts with naive, and `source` says so.
    Raises BadInput for an unknown symbol or family, and for a family without a champion;
    CheckpointError if a file of the champion is gone or altered.
    """
    from retrain_assets.evaluation.production import ProductionStore
    from retrain_assets.training.adapter_store import ModelStore

    place = Home.find(None if home is None else Path(home))
    bars = BarStore(place.market)
    stock = Universe.load(place.universe).stock(symbol, stored=bars.symbols())
    record = ProductionStore(place.production).live(stock.symbol)
    if record is None and family in (None, NAIVE):
        version = NAIVE_VERSION
        source = f"{NAIVE}, since nothing was promoted for {stock.symbol} yet"
    else:
        version = promoted(record or {}, stock.symbol, family)
        source = version.title
    return LiveForecaster.load(
        version,
        symbol=stock.symbol,
        calendar=stock.calendar,
        names=stock.aliases,
        bars=bars,
        store=ModelStore(place.models),
        checkpoints=place.checkpoints,
        source=source,
        device=device,
        max_age_sessions=max_age_sessions,
        threads=threads,
    )


def promoted(record: Mapping[str, Any], symbol: str, family: str | None) -> Version:
    """The version that a symbol's champion record names.

    record: empty before the first promotion. family: whose champion, or `naive`; None for the
    best of all. Raises BadInput for an unknown family or one without a champion, and for a
    record that cannot be read.
    """
    if family == NAIVE:
        return NAIVE_VERSION
    own = None if family is None else known_family(family).name
    champions = record.get("families", {})
    if own is not None and own not in champions:
        has = f"{', '.join(champions)} has" if champions else "no family has"
        raise BadInput(
            f"{own} has no champion for {symbol}, {has} one: leave the family out to get what is "
            "in production"
        )
    try:
        found = record["pointer"]["version"] if own is None else champions[own]["champion"]
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"the production record of {symbol} cannot be read ({error!r}): materialize its "
            "champion again"
        ) from error
    return Version.from_json(found)
