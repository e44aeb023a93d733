"""Yahoo Finance, through yfinance: no key is needed; its terms allow personal use alone.

yfinance knows how Yahoo wants to be asked (cookies, consent, what a browser looks like). Its
histories are not used: they keep broken answers in memory, so that asking again is of no use, and
do not tell an unknown symbol from a server that is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.market.calendar import zone
from retrain_assets.market.feeds import (
    Busy,
    FeedFailed,
    Instrument,
    finished,
    library,
    patiently,
    retry_after,
    unreadable,
)

_CHART = "https://query2.finance.yahoo.com/v8/finance/chart/"
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Yahoo:
    """Daily bars of stocks, funds and coins all over the world."""

    name: str = "yahoo"
    title: str = "Yahoo Finance"

    def daily_bars(
        self, instrument: Instrument, first: pd.Timestamp, last: pd.Timestamp
    ) -> pd.DataFrame:
        """See `Feed`. Yahoo's opens, highs, lows and closes are adjusted for splits alone."""
        spelled = spelling(instrument)
        result = patiently(lambda: self._asked(spelled, instrument, first, last), of=self.title)
        try:
            bars = _rows(result)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise unreadable(self.title, spelled, repr(error)) from error
        return finished(bars, instrument, first, last)

    def _asked(
        self, spelled: str, instrument: Instrument, first: pd.Timestamp, last: pd.Timestamp
    ) -> dict[str, Any]:
        """The part of one answer that is about the symbol, as Yahoo sends it."""
        data = library("yfinance.data", extra="yahoo").YfData()
        limited = library("yfinance.exceptions", extra="yahoo").YFRateLimitError
        local = zone(instrument.calendar)
        params = {
            "period1": int(first.tz_localize(local).timestamp()),
            "period2": int((last + pd.Timedelta(days=1)).tz_localize(local).timestamp()),
            "interval": "1d",
            "includePrePost": "false",
        }
        try:
            answer = data.get(f"{_CHART}{spelled}", params=params, timeout=_TIMEOUT_SECONDS)
        except limited as error:
            raise Busy("too many requests") from error
        except OSError as error:  # every error of the network, whichever library carries it
            raise Busy(f"{type(error).__name__}: {error}") from error
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Busy(f"status {answer.status_code}", retry_after(answer.headers))
        return self._result(answer, spelled, instrument)

    def _result(self, answer: Any, spelled: str, instrument: Instrument) -> dict[str, Any]:
        try:
            chart = answer.json()["chart"]
            problem, results = chart.get("error"), chart.get("result")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.title, spelled, f"status {answer.status_code}") from error
        if answer.status_code == 404:
            raise BadInput(
                f"{self.title} knows no {spelled} ({_words(problem)}): if {instrument.symbol} has "
                "another name there, list it under aliases in universe.yaml; if it is traded no "
                "longer, write `active: false`"
            )
        if _has_no_bars(problem):
            return {}
        if problem or answer.status_code >= 400 or not isinstance(results, list) or not results:
            raise FeedFailed(
                f"{self.title} refuses to answer for {spelled} (status {answer.status_code}, "
                f"{_words(problem)}): try again later, or import a file"
            )
        return dict(results[0])


def spelling(instrument: Instrument) -> str:
    """How Yahoo writes a symbol: BTC-USD for a coin, BRK-B for a class of shares, VOD.L abroad."""
    if instrument.is_coin:
        return instrument.pair("-")
    if instrument.is_american:
        return instrument.symbol.replace(".", "-")
    return next((alias.upper() for alias in instrument.aliases if "." in alias), instrument.symbol)


def _rows(result: dict[str, Any]) -> pd.DataFrame:
    """The rows of an answer, dated by the exchange's own clock; raises as Python does."""
    stamps = result.get("timestamp") or []
    (quote,) = result["indicators"]["quote"] if stamps else ({},)
    local = result["meta"]["exchangeTimezoneName"] if stamps else "UTC"
    opened = pd.DatetimeIndex(pd.to_datetime(stamps, unit="s", utc=True)).tz_convert(local)
    columns = {name: quote[name] if stamps else [] for name in ("open", "high", "low", "close")}
    volume = quote["volume"] if stamps else []
    return pd.DataFrame(
        {"session": opened.tz_localize(None).normalize(), **columns, "volume": volume}
    )


def _has_no_bars(problem: Any) -> bool:
    """Whether this is what Yahoo answers for a time from which it has no bar of a symbol."""
    return isinstance(problem, dict) and "Data doesn't exist" in str(problem.get("description"))


def _words(problem: Any) -> str:
    return str(problem.get("description")) if isinstance(problem, dict) else "without a reason"


FEED = Yahoo()
