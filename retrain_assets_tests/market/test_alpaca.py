"""Bars from Alpaca: recorded answers, played at the HTTP layer of alpaca-py."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import requests

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS
from retrain_assets.market.feeds import FeedBusy, FeedFailed, Instrument, feed
from retrain_assets.market.feeds.alpaca import spelling
from retrain_assets.market.schema import validate
from retrain_assets_tests.market.vendors import Vendor, recorded

AAPL = Instrument("AAPL")
BTC = Instrument("BTCUSD", "24/7", ("BTC-USD", "BTC/USD"))
FIRST, LAST = pd.Timestamp("2023-09-11"), pd.Timestamp("2023-09-22")


def bars(instrument: Instrument = AAPL, first: Any = FIRST, last: Any = LAST) -> pd.DataFrame:
    return feed("alpaca").daily_bars(instrument, pd.Timestamp(first), pd.Timestamp(last))


def test_bars_of_all_pages_are_taken(alpaca: Vendor) -> None:
    alpaca.answer("alpaca_aapl_1")
    alpaca.answer("alpaca_aapl_2")
    found = bars()
    assert list(found.columns) == list(BAR_COLUMNS)
    assert [f"{day:%m-%d}" for day in found["session"][[0, 9]]] == ["09-11", "09-22"]
    sent = [page for name in (1, 2) for page in recorded(f"alpaca_aapl_{name}")["bars"]["AAPL"]]
    assert list(found["close"]) == [bar["c"] for bar in sent]
    validate(found, symbol="AAPL", calendar="XNYS", where="Alpaca")
    (url, first), (_, second) = alpaca.asked
    assert url == "https://data.alpaca.markets/v2/stocks/bars"
    assert (first["timeframe"], first["adjustment"], first["feed"]) == ("1Day", "split", "sip")
    # A free account may not ask for the last quarter of an hour, and the day's bar is older.
    assert first["end"].startswith("2023-09-22T05")
    assert second["page_token"] == recorded("alpaca_aapl_1")["next_page_token"]


def test_the_bars_of_a_coin_are_put_together_from_hours(alpaca: Vendor) -> None:
    alpaca.answer("alpaca_btc")
    found = bars(BTC, "2023-09-20", "2023-09-21")
    hours = recorded("alpaca_btc")["bars"]["BTC/USD"]
    day = [hour for hour in hours if hour["t"].startswith("2023-09-20")]
    assert [f"{session:%m-%d}" for session in found["session"]] == ["09-20", "09-21"]
    assert found.iloc[0, 1:].to_list() == [
        day[0]["o"],
        max(hour["h"] for hour in day),
        min(hour["l"] for hour in day),
        day[-1]["c"],
        pytest.approx(sum(hour["v"] for hour in day)),
    ]
    validate(found, symbol="BTCUSD", calendar="24/7", where="Alpaca")
    ((url, params),) = alpaca.asked
    assert url == "https://data.alpaca.markets/v1beta3/crypto/us/bars"
    assert params["timeframe"] == "1Hour"
    assert params["symbols"] == "BTC%2FUSD"


def test_a_stock_that_alpaca_has_nothing_of_is_an_empty_frame(alpaca: Vendor) -> None:
    alpaca.answer("alpaca_none")
    assert bars(Instrument("NOSUCH")).empty
    assert list(bars(BTC).columns) == list(BAR_COLUMNS)


def test_too_many_requests_are_waited_for(alpaca: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    def asleep(seconds: float) -> None:
        raise AssertionError("the library waits by itself")

    monkeypatch.setattr("alpaca.common.rest.time.sleep", asleep)
    alpaca.answer("alpaca_limited", 429, Retry_After="21")
    alpaca.answer("", 504)
    alpaca.fail(requests.exceptions.ConnectTimeout("timed out"))
    alpaca.answer("alpaca_aapl_2")
    assert len(bars()) == 4
    assert alpaca.waited[0] == 21
    assert 2 <= alpaca.waited[1] <= 3
    assert len(alpaca.waited) == 3


def test_trouble_that_stays_is_given_up(alpaca: Vendor) -> None:
    alpaca.answer("alpaca_limited", 429)
    with pytest.raises(FeedBusy, match=r"Alpaca does not answer \(status 429; asked 8 times"):
        bars()


@pytest.mark.parametrize(
    ("status", "answer", "told"),
    [
        (403, "alpaca_forbidden", "refuses the keys in APCA_API_KEY_ID and APCA_API_SECRET_KEY"),
        (400, "alpaca_invalid", r"knows no AAPL \(status 400, .*invalid symbol"),
    ],
)
def test_refusals_are_told_and_not_tried_again(
    alpaca: Vendor, status: int, answer: str, told: str
) -> None:
    alpaca.answer(answer, status)
    with pytest.raises(BadInput, match=told) as caught:
        bars()
    assert "not-to-be-told" not in repr(caught.value)
    assert "AK-OURS" not in repr(caught.value)
    assert alpaca.waited == []


def test_a_redirection_is_no_answer(alpaca: Vendor) -> None:
    alpaca.answer("", 302, Location="https://elsewhere.example/")
    with pytest.raises(FeedFailed, match="Alpaca answered for AAPL with something"):
        bars()


@pytest.mark.parametrize(
    "body",
    [
        *("<html>hello</html>", {"bars": None, "next_page_token": None}, {"message": "hello"}, []),
        {"bars": {"AAPL": [{"t": "2023-09-11T04:00:00Z", "o": 1.0}]}, "next_page_token": None},
        {"bars": {"AAPL": [{**dict.fromkeys("ohlcv", "x"), "t": "?"}]}, "next_page_token": None},
    ],
)
def test_malformed_answers_are_told(alpaca: Vendor, body: Any) -> None:
    alpaca.answer(body)
    with pytest.raises(FeedFailed, match="Alpaca answered for AAPL with something"):
        bars()
    assert alpaca.waited == []


def test_stocks_need_keys_and_coins_do_not(alpaca: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    alpaca.answer("alpaca_btc")
    with pytest.raises(BadInput, match="set APCA_API_SECRET_KEY in the environment"):
        bars()
    assert alpaca.asked == []
    assert len(bars(BTC)) == 3


@pytest.mark.parametrize(
    ("instrument", "spelled"),
    [
        (Instrument("BRK.B"), "BRK.B"),
        (Instrument("BTCUSD", "24/7"), "BTC/USD"),
        (Instrument("UNIUSD", "24/7", ("UNI7083-USD", "UNI/USD")), "UNI/USD"),
    ],
)
def test_symbols_are_spelled_as_alpaca_does(instrument: Instrument, spelled: str) -> None:
    assert spelling(instrument) == spelled


def test_foreign_stocks_are_refused() -> None:
    with pytest.raises(BadInput, match="American stocks and coins alone, not calendar XLON"):
        spelling(Instrument("VOD.L", "XLON"))
