"""Bars from Example: a recorded answer, played at the HTTP layer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market.feeds import FeedBusy, FeedFailed, Instrument, feed
from retrain_assets_tests.market.vendors import Vendor

ANSWER = (Path(__file__).parent / "recorded" / "AAPL.csv").read_text("utf-8")
FIRST, LAST = pd.Timestamp("2023-09-20"), pd.Timestamp("2023-09-22")


def bars(symbol: str = "AAPL", calendar: str = "XNYS") -> pd.DataFrame:
    return feed("example").daily_bars(Instrument(symbol, calendar), FIRST, LAST)


def test_rows_become_bars(over_requests: Vendor) -> None:
    over_requests.answer(ANSWER)
    assert list(bars()["close"]) == [175.49, 173.93, 174.79]
    ((url, params),) = over_requests.asked
    assert url.endswith("/AAPL.csv")
    assert params == {"from": "2023-09-20", "to": "2023-09-22"}


def test_no_bars_are_an_empty_frame(over_requests: Vendor) -> None:
    over_requests.answer(ANSWER.partition("\n")[0])
    assert bars().empty


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        *((404, "", BadInput), (403, "", FeedFailed), (503, "", FeedBusy), (429, "", FeedBusy)),
        *((200, "", FeedFailed), (200, "<html>", FeedFailed)),
        (200, ANSWER.replace("175.49", "none"), FeedFailed),
    ],
)
def test_what_goes_wrong_is_told(
    over_requests: Vendor, status: int, body: str, error: type[Exception]
) -> None:
    over_requests.answer(body, status)
    with pytest.raises(error, match=r"Example .* AAPL|Example does not answer"):
        bars()


def test_trouble_that_passes_is_waited_for(over_requests: Vendor) -> None:
    over_requests.fail(ConnectionError("refused"))
    over_requests.answer("", 503, Retry_After="17")
    over_requests.answer(ANSWER)
    assert len(bars()) == 3
    assert over_requests.waited[1] == 17.0


def test_what_the_vendor_has_not_is_refused() -> None:
    with pytest.raises(BadInput, match="American stocks, not BTCUSD: choose another feed"):
        bars("BTCUSD", "24/7")
