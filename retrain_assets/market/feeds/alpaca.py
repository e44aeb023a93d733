"""Alpaca's market data, through alpaca-py: American stocks and funds, and coins in dollars.

Stocks need the two keys of an account, a free one will do, in APCA_API_KEY_ID and
APCA_API_SECRET_KEY. Coins need none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.market.calendar import US_STOCKS, zone
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

KEYS = ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
_TIMEOUT_SECONDS = 30
_FIELDS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_COLUMNS = ["open", "high", "low", "close", "volume"]


@dataclass(frozen=True)
class Alpaca:
    """Daily bars of all American exchanges together, and of coins on Alpaca's own exchange."""

    name: str = "alpaca"
    title: str = "Alpaca"

    def daily_bars(
        self, instrument: Instrument, first: pd.Timestamp, last: pd.Timestamp
    ) -> pd.DataFrame:
        """See `Feed`. A coin's bars are put together from hours.

        Alpaca's daily bars of coins began at midnight in Chicago for years, and do so at midnight
        UTC now; hours are the same under both rules.
        """
        spelled = spelling(instrument)
        ask = self._coin if instrument.is_coin else self._stock
        answer = patiently(lambda: ask(spelled, first, last), of=self.title)
        try:
            rows = _rows(answer, spelled)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unreadable(self.title, spelled, repr(error)) from error
        local = rows.pop("stamp").dt.tz_convert(zone(instrument.calendar))
        rows["session"] = local.dt.tz_localize(None).dt.normalize()
        if instrument.is_coin:
            rows = _days(rows)
        return finished(rows, instrument, first, last)

    def _stock(self, spelled: str, first: pd.Timestamp, last: pd.Timestamp) -> dict[str, Any]:
        data, requests = _data("historical.stock"), _data("requests")
        client = data.StockHistoricalDataClient(*_keys(), raw_data=True)
        local = zone(US_STOCKS)
        request = requests.StockBarsRequest(
            symbol_or_symbols=spelled,
            timeframe=_data("timeframe").TimeFrame.Day,
            start=first.tz_localize(local).to_pydatetime(),
            # A day's bar is stamped with its midnight. Asked for until now, a free account would be
            # refused, for it may not see the last quarter of an hour.
            end=(last.tz_localize(local) + pd.Timedelta(hours=1)).to_pydatetime(),
            adjustment=_data("enums").Adjustment.SPLIT,
            feed=_data("enums").DataFeed.SIP,
        )
        return self._answered(client, client.get_stock_bars, request, spelled)

    def _coin(self, spelled: str, first: pd.Timestamp, last: pd.Timestamp) -> dict[str, Any]:
        data, requests = _data("historical.crypto"), _data("requests")
        keys = [os.environ.get(name) or None for name in KEYS]
        client = data.CryptoHistoricalDataClient(*(keys if all(keys) else ()), raw_data=True)
        request = requests.CryptoBarsRequest(
            symbol_or_symbols=spelled,
            timeframe=_data("timeframe").TimeFrame.Hour,
            start=first.to_pydatetime(),
            end=(last + pd.Timedelta(hours=23)).to_pydatetime(),
        )
        return self._answered(client, client.get_crypto_bars, request, spelled)

    def _answered(self, client: Any, ask: Any, request: Any, spelled: str) -> dict[str, Any]:
        """What the library returns, which has followed all pages; its errors as ours."""
        _prepare(client)
        failed = library("alpaca.common.exceptions", extra="alpaca").APIError
        try:
            return dict(ask(request))
        except failed as error:
            raise self._refused(error, spelled) from None  # its request carries the keys
        except OSError as error:
            # What cannot be decoded is among the errors of the network in this library.
            if isinstance(error, ValueError):
                raise unreadable(self.title, spelled, type(error).__name__) from error
            raise Busy(type(error).__name__) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise unreadable(self.title, spelled, repr(error)) from error

    def _refused(self, error: Any, spelled: str) -> Exception:
        status, words = error.status_code, " ".join(str(error).split())[:300]
        if status == 429 or (status or 0) >= 500:
            return Busy(f"status {status}", retry_after(error.response.headers))
        if status in (401, 403):
            return BadInput(
                f"{self.title} refuses the keys in {' and '.join(KEYS)} for {spelled} (status "
                f"{status}, {words}): see whether they are right, and what the account may see"
            )
        if status in (400, 404, 422):
            return BadInput(
                f"{self.title} knows no {spelled} (status {status}, {words}): if it has another "
                "name there, list it under aliases in universe.yaml, or write `active: false`"
            )
        return FeedFailed(
            f"{self.title} refuses to answer for {spelled} (status {status}, {words})"
        )


def spelling(instrument: Instrument) -> str:
    """How Alpaca writes a symbol: BTC/USD for a coin; raises BadInput for a foreign stock."""
    if instrument.is_coin:
        return instrument.pair("/")
    if not instrument.is_american:
        raise BadInput(
            f"Alpaca has American stocks and coins alone, not calendar "
            f"{instrument.calendar}: choose another feed, or import its files"
        )
    return instrument.symbol


def _keys() -> list[str]:
    missing = [name for name in KEYS if not os.environ.get(name)]
    if missing:
        raise BadInput(
            f"Alpaca needs the keys of an account: set {' and '.join(missing)} in the environment "
            "of what fetches (the command, or Dagster's daemon and code server)"
        )
    return [os.environ[name] for name in KEYS]


def _data(module: str) -> Any:
    return library(f"alpaca.data.{module}", extra="alpaca")


def _prepare(client: Any) -> None:
    """Give every request a time limit, and leave asking again to `patiently`.

    The library waits for ever, and asks again without looking at what the vendor wants.
    """
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, *args: Any, **options: Any) -> Any:
            return super().send(*args, **{**options, "timeout": _TIMEOUT_SECONDS})

    client._retry = 0
    client._session.mount("https://", Limited())


def _rows(answer: dict[str, Any], spelled: str) -> pd.DataFrame:
    """The bars of an answer with their stamps in UTC; raises as Python does."""
    bars = answer.get(spelled) or []
    rows = pd.DataFrame({ours: [bar[key] for bar in bars] for key, ours in _FIELDS.items()})
    stamps = pd.to_datetime([bar["t"] for bar in bars], utc=True)
    return rows.astype("float64").assign(stamp=pd.Series(stamps, dtype="datetime64[ns, UTC]"))


def _days(hours: pd.DataFrame) -> pd.DataFrame:
    """One row a day out of rows of hours."""
    of_day = hours.groupby("session", as_index=False)
    return of_day.agg(
        {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    )


FEED = Alpaca()
