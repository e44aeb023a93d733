"""Bars from Yahoo: recorded answers, played at the HTTP layer of yfinance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market.bars import BAR_COLUMNS
from retrain_assets.market.feeds import FeedBusy, FeedFailed, Instrument, feed
from retrain_assets.market.feeds.yahoo import spelling
from retrain_assets.market.schema import validate
from retrain_assets_tests.market.vendors import Vendor, recorded

AAPL = Instrument("AAPL")
BTC = Instrument("BTCUSD", "24/7", ("BTC-USD", "BTC/USD"))
FIRST, LAST = pd.Timestamp("2023-09-11"), pd.Timestamp("2023-09-22")


def bars(instrument: Instrument = AAPL, first: Any = FIRST, last: Any = LAST) -> pd.DataFrame:
    return feed("yahoo").daily_bars(instrument, pd.Timestamp(first), pd.Timestamp(last))


def quotes(name: str = "yahoo_aapl") -> dict[str, list[float]]:
    found: dict[str, list[float]] = recorded(name)["chart"]["result"][0]["indicators"]["quote"][0]
    return found


def test_rows_become_bars_that_are_adjusted_for_splits_alone(yahoo: Vendor) -> None:
    yahoo.answer("yahoo_aapl")
    found = bars()
    assert list(found.columns) == list(BAR_COLUMNS)
    assert list(found["session"].dt.strftime("%m-%d")[[0, 9]]) == ["09-11", "09-22"]
    # The column `close` and not `adjclose`, which is adjusted for dividends too.
    assert list(found["close"]) == quotes()["close"]
    assert list(found["volume"]) == quotes()["volume"]
    validate(found, symbol="AAPL", calendar="XNYS", where="Yahoo")
    ((url, params),) = yahoo.asked
    assert url.endswith("/v8/finance/chart/AAPL")
    # From midnight to midnight in New York.
    assert (params["period1"], params["period2"]) == (1694404800, 1695441600)


def test_only_what_was_asked_for_is_taken(yahoo: Vendor) -> None:
    yahoo.answer("yahoo_aapl")
    found = bars(first="2023-09-13", last="2023-09-20")
    assert [f"{day:%m-%d}" for day in found["session"]] == [
        *("09-13", "09-14", "09-15", "09-18", "09-19", "09-20")
    ]


def test_rows_without_prices_are_left_out(yahoo: Vendor) -> None:
    answer = recorded("yahoo_aapl")
    for column in answer["chart"]["result"][0]["indicators"]["quote"][0].values():
        column[3] = None
    yahoo.answer(answer)
    assert "2023-09-14" not in set(bars()["session"].astype(str))
    assert len(bars()) == 9


def test_the_latest_trade_is_no_bar_of_its_own(yahoo: Vendor) -> None:
    yahoo.answer("yahoo_btc")
    found, quoted = bars(BTC, "2023-09-18"), quotes("yahoo_btc")
    assert [f"{day:%d}" for day in found["session"]] == ["18", "19", "20", "21", "22"]
    last = found.iloc[-1]
    assert last["close"] == quoted["close"][-1]
    assert last["open"] == quoted["open"][-2]
    assert last["high"] == max(quoted["high"][-2:])
    assert last["volume"] == max(quoted["volume"][-2:])


def test_the_running_session_is_left_out(yahoo: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    yahoo.answer("yahoo_aapl")
    for moment, last in (("19:59", "2023-09-21"), ("20:00", "2023-09-22")):
        now = pd.Timestamp(f"2023-09-22 {moment}", tz="UTC")
        monkeypatch.setattr(pd.Timestamp, "now", lambda *_, now=now: now)
        assert f"{bars()['session'].iloc[-1]:%Y-%m-%d}" == last


@pytest.mark.parametrize("answer", ["yahoo_empty", "yahoo_too_early"])
def test_no_bars_are_an_empty_frame(yahoo: Vendor, answer: str) -> None:
    yahoo.answer(answer, 400 if answer == "yahoo_too_early" else 200)
    found = bars()
    assert found.empty
    assert list(found.columns) == list(BAR_COLUMNS)


def test_an_unknown_symbol_is_not_asked_for_again(yahoo: Vendor) -> None:
    yahoo.answer("yahoo_unknown", 404)
    with pytest.raises(BadInput, match=r"knows no NOSUCH \(No data found, symbol may be deli"):
        bars(Instrument("NOSUCH"))
    assert yahoo.waited == []


def limited(vendor: Vendor) -> None:
    # yfinance itself asks twice before it gives up.
    vendor.answer("yahoo_limited", 429)
    vendor.answer("yahoo_limited", 429)


def broken(vendor: Vendor) -> None:
    vendor.answer("<html>Bad Gateway</html>", 502)
    vendor.answer("<html>Bad Gateway</html>", 502)


def unreachable(vendor: Vendor) -> None:
    from curl_cffi.requests.exceptions import Timeout

    vendor.fail(Timeout("Operation timed out"))


@pytest.mark.parametrize("trouble", [limited, broken, unreachable])
def test_trouble_that_passes_is_waited_for(
    yahoo: Vendor, trouble: Callable[[Vendor], None]
) -> None:
    trouble(yahoo)
    trouble(yahoo)
    yahoo.answer("yahoo_aapl")
    assert len(bars()) == 10
    assert len(yahoo.waited) == 2
    assert 1 <= yahoo.waited[0] <= 2 <= yahoo.waited[1] <= 3


def test_a_vendor_is_waited_for_as_long_as_it_asks(yahoo: Vendor) -> None:
    yahoo.answer("", 503, Retry_After="17")
    yahoo.answer("", 503, Retry_After="17")
    yahoo.answer("yahoo_aapl")
    assert len(bars()) == 10
    assert yahoo.waited == [17.0]


def test_trouble_that_stays_is_given_up(yahoo: Vendor) -> None:
    yahoo.answer("yahoo_limited", 429)
    with pytest.raises(FeedBusy, match=r"Yahoo Finance does not answer .*asked 8 times\): try"):
        bars()
    assert len(yahoo.waited) == 7
    assert sum(yahoo.waited) < 120


def test_nobody_waits_for_longer_than_two_minutes(yahoo: Vendor) -> None:
    yahoo.answer("", 503, Retry_After="3600")
    with pytest.raises(FeedBusy, match="left alone for 3600 s; asked 1 times"):
        bars()
    assert yahoo.waited == []


def shorter(answer: Any) -> Any:
    answer["chart"]["result"][0]["timestamp"].pop()
    return answer


def lacking(answer: Any) -> Any:
    del answer["chart"]["result"][0]["indicators"]["quote"][0]["high"]
    return answer


@pytest.mark.parametrize(
    "spoil",
    [
        *(shorter, lacking, lambda _: "<html>hello</html>", lambda _: {"chart": None}),
        *(lambda _: [], lambda _: {"chart": {"result": [], "error": None}}),
    ],
)
def test_malformed_answers_are_told(yahoo: Vendor, spoil: Callable[[Any], Any]) -> None:
    yahoo.answer(spoil(recorded("yahoo_aapl")))
    with pytest.raises(FeedFailed, match=r"Yahoo Finance (answered|refuses to answer) for AAPL"):
        bars()
    assert yahoo.waited == []


@pytest.mark.parametrize(
    ("instrument", "spelled"),
    [
        (Instrument("BRK.B"), "BRK-B"),
        # The alias of a stock is what it was called once.
        (Instrument("META", aliases=("FB",)), "META"),
        (Instrument("BTCUSD", "24/7"), "BTC-USD"),
        (Instrument("ETHUSDT", "24/7"), "ETH-USDT"),
        (Instrument("UNIUSD", "24/7", ("UNI7083-USD", "UNI/USD")), "UNI7083-USD"),
        (Instrument("VOD.L", "XLON"), "VOD.L"),
        (Instrument("SAP", "XETR", ("SAP.DE",)), "SAP.DE"),
    ],
)
def test_symbols_are_spelled_as_yahoo_does(instrument: Instrument, spelled: str) -> None:
    assert spelling(instrument) == spelled


def test_a_coin_without_a_currency_is_refused() -> None:
    with pytest.raises(BadInput, match="list its name with a '-' under aliases"):
        spelling(Instrument("DOGE", "24/7"))
