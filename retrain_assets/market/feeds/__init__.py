"""Where daily bars are fetched from: the protocol of a feed, the registry, and what feeds share.

A feed is one module of this package that holds an object named `FEED` which implements `Feed`.
The registry finds the modules, and `operation.feed.source` in universe.yaml takes the name, so a
new source needs no edit elsewhere. Importing such a module must be cheap: a vendor's library is
imported inside its methods, with `library`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Protocol, TypeVar

import pandas as pd
import tenacity

from retrain_assets.errors import BadInput, RetrainError, Transient
from retrain_assets.market.bars import BAR_COLUMNS, VALUE_COLUMNS
from retrain_assets.market.calendar import US_STOCKS, last_closed

# So often, and for so long in all, a vendor is asked that is busy or broken.
_TRIES = 8
_PATIENCE_SECONDS = 120.0
_LONGEST_WAIT_SECONDS = 30.0
_COIN_CALENDAR = "24/7"
# Calendars under which stocks have their American symbols: the New York exchange and its aliases.
_AMERICAN = {"XNYS", "NYSE", "XNAS", "NASDAQ", "XASE", "ARCX", "BATS", "OOTC"}
# Currencies in which coins are quoted, the longer names first.
_QUOTES = ("USDT", "USDC", "USD", "EUR", "GBP", "BTC", "ETH")

T = TypeVar("T")


@dataclass(frozen=True)
class Instrument:
    """What is asked for: a symbol of ours, whose sessions it has, and its other names."""

    symbol: str
    calendar: str = US_STOCKS
    aliases: tuple[str, ...] = ()

    @property
    def is_coin(self) -> bool:
        """Whether it is traded around the clock."""
        return self.calendar == _COIN_CALENDAR

    @property
    def is_american(self) -> bool:
        """Whether it is a stock or fund of an American exchange."""
        return self.calendar in _AMERICAN

    def pair(self, separator: str) -> str:
        """A coin as vendors write it, such as BTC-USD.

        An alias written like that goes first, for some coins have other names at some vendors.
        Raises BadInput where the symbol does not say in which currency it is quoted.
        """
        spelled = next((a.upper() for a in self.aliases if separator in a), None)
        if spelled:
            return spelled
        quote = next((q for q in _QUOTES if self.symbol.endswith(q) and self.symbol != q), None)
        if quote is None:
            raise BadInput(
                f"it is not clear which coin this is in which currency; list its "
                f"name with a {separator!r} under aliases in universe.yaml, such as "
                f"BTC{separator}USD"
            )
        return f"{self.symbol.removesuffix(quote).rstrip('-')}{separator}{quote}"


class FeedFailed(RetrainError):
    """A feed that answered with something other than the bars it was asked for."""


class FeedBusy(Transient):
    """A feed that did not answer, or not in time, however often it was asked."""


class Busy(Exception):
    """Raised by a feed within `patiently`: what was asked for is worth asking for again.

    after: seconds the vendor wants to be left alone for, 0 if it does not say.
    """

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


class Feed(Protocol):
    """A source of daily bars."""

    name: str
    title: str

    def daily_bars(
        self, instrument: Instrument, first: pd.Timestamp, last: pd.Timestamp
    ) -> pd.DataFrame:
        """Bars of the sessions `first` to `last`, in the columns of the bar store.

        first, last: sessions (tz-naive dates of the exchange), both inclusive. Sessions that have
        not closed are left out, and so are those of which the vendor has no bar; the frame may be
        empty. Prices are adjusted for splits and for nothing else: adjusted for dividends, all
        earlier prices would change with every dividend, and stored bars would not fit newer ones.

        Raises BadInput for an instrument the feed does not know, for a missing library or missing
        keys; FeedFailed for an answer that cannot be read; FeedBusy when the vendor stays away.
        """
        ...


@cache
def feeds() -> dict[str, Feed]:
    """Every feed found in this package, by name, in alphabetical order."""
    found: dict[str, Feed] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        feed: Any = importlib.import_module(f"{__name__}.{module.name}").FEED
        found[feed.name] = feed
    return found


def feed(name: str) -> Feed:
    """The feed called `name`; raises BadInput listing the known ones."""
    if name not in feeds():
        raise BadInput(f"no feed {name!r}: choose one of {', '.join(feeds())}")
    return feeds()[name]


def library(name: str, *, extra: str) -> ModuleType:
    """A vendor's library, or BadInput with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise  # the library is there, and something that it needs is not
        raise BadInput(
            f"{name.split('.')[0]} is not installed: run `pip install 'retrain-assets[{extra}]'`"
        ) from error


def patiently(call: Callable[[], T], *, of: str) -> T:
    """What `call` returns, asked again for as long as it raises Busy; `of` names the vendor.

    Waits grow, with some chance in them so that several machines do not ask in step, and are never
    shorter than the vendor wants. Raises FeedBusy after eight tries or two minutes.
    """
    growing = tenacity.wait_exponential_jitter(max=_LONGEST_WAIT_SECONDS)

    def wait(state: tenacity.RetryCallState) -> float:
        raised = state.outcome.exception() if state.outcome else None
        return max(growing(state), raised.after if isinstance(raised, Busy) else 0.0)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Busy),
        wait=wait,
        stop=tenacity.stop_after_attempt(_TRIES) | tenacity.stop_before_delay(_PATIENCE_SECONDS),
        # Looked up at each wait.
        sleep=lambda seconds: tenacity.nap.sleep(seconds),
        reraise=True,
    )
    try:
        return retrying(call)
    except Busy as error:
        tries = retrying.statistics.get("attempt_number", 1)
        asks = f", and wants to be left alone for {error.after:.0f} s" if error.after else ""
        raise FeedBusy(
            f"{of} does not answer ({error}{asks}; asked {tries} times): try again later"
        ) from error


def retry_after(headers: Any) -> float:
    """Seconds that an answer's header Retry-After asks for; 0 without one.

    The date that the header may hold instead is taken as none: waits grow anyway.
    """
    text = str((headers or {}).get("Retry-After", "")).strip()
    return float(text) if text.isdecimal() else 0.0


def finished(
    bars: pd.DataFrame,
    instrument: Instrument,
    first: pd.Timestamp,
    last: pd.Timestamp,
    *,
    now: pd.Timestamp | None = None,
) -> pd.DataFrame:
    """Cut a vendor's rows to `first` to `last` and to sessions that have closed.

    bars: the columns of the bar store, in any order of rows. Several rows of one session become
    one, as vendors send the latest trade as a row of its own; rows without any price are left out,
    and a missing volume is 0.
    """
    now = pd.Timestamp.now("UTC") if now is None else now
    last = min(last, last_closed(instrument.calendar, now))
    prices = list(VALUE_COLUMNS[:-1])
    rows = bars[(bars["session"] >= first) & (bars["session"] <= last)]
    rows = rows.dropna(subset=prices, how="all").astype(dict.fromkeys(VALUE_COLUMNS, "float64"))
    of_session = rows.sort_values("session", kind="stable").groupby("session", as_index=False)
    shaped = of_session.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "max"}
    )
    shaped["session"] = shaped["session"].astype("datetime64[ns]")
    return shaped.assign(volume=shaped["volume"].fillna(0.0))[list(BAR_COLUMNS)]


def unreadable(of: str, spelled: str, why: object) -> FeedFailed:
    """The error for an answer that has not the shape its vendor documents."""
    return FeedFailed(
        f"{of} answered for {spelled} with something that is no bars ({why}): try again later, and "
        "if it stays, look for a newer release of the vendor's library"
    )
