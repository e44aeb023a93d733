"""What feeds share: the registry, missing libraries, which session has closed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.market import feeds as package
from retrain_assets.market.feeds import Instrument, feed, feeds, finished, library
from retrain_assets.market.fetching import fetch_all
from retrain_assets_tests.market.made import walk

SOURCE = """
class Made:
    name, title = "made", "Made up"

    def daily_bars(self, instrument, first, last):
        raise NotImplementedError

FEED = Made()
"""


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more module in the package of feeds."""
    (tmp_path / "made.py").write_text(SOURCE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    feeds.cache_clear()
    yield
    feeds.cache_clear()
    sys.modules.pop(f"{package.__name__}.made", None)


def test_the_feeds_are_found() -> None:
    assert {"alpaca", "yahoo"} <= set(feeds())
    with pytest.raises(BadInput, match=f"no feed 'reuters': choose one of {', '.join(feeds())}"):
        feed("reuters")


def test_a_new_feed_is_one_new_module(another: None) -> None:
    from retrain_assets.operation import Feed

    assert feed("made").title == "Made up"
    assert Feed(source="made").source == "made"


def test_a_universe_with_an_unknown_feed_is_refused(tmp_path: Path) -> None:
    from retrain_assets.universe import Universe

    file = tmp_path / "universe.yaml"
    lines = ("first_month: 2015-01", "operation:", "  feed: {source: reuters}", "stocks:")
    file.write_text("\n".join((*lines, "  - {symbol: AAPL}")))
    with pytest.raises(BadInput, match=r"line 3, operation.feed.source: there is no feed 'reut"):
        Universe.load(file)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("yahoo", "yfinance", "yahoo"), ("alpaca", "alpaca", "alpaca")],
)
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    for loaded in [n for n in sys.modules if n.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("APCA_API_KEY_ID", "AK")
    monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")
    day = pd.Timestamp("2023-09-11")
    told = rf"{module} is not installed: run `pip install 'retrain-assets\[{extra}\]'`"
    with pytest.raises(BadInput, match=told):
        feed(name).daily_bars(Instrument("AAPL"), day, day)


def test_a_library_that_lacks_something_itself_says_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        library("half_there", extra="half")


def test_rows_are_cut_sorted_and_made_whole() -> None:
    bars = walk(10).iloc[::-1]
    bars.loc[4, "volume"] = float("nan")
    bars.loc[5, ["open", "high", "low", "close"]] = float("nan")
    first, last = bars.loc[2, "session"], bars.loc[7, "session"]
    shaped = finished(bars, Instrument("NVDA"), first, last)
    assert list(shaped["session"]) == list(walk(10)["session"].drop(5)[2:7])
    assert shaped["volume"].to_list()[2] == 0
    assert shaped["session"].dtype == "datetime64[ns]"


def test_nothing_to_fetch_asks_nobody(another: None, tmp_path: Path) -> None:
    from retrain_assets.market.bars import BarStore

    outcome = fetch_all([], feed("made"), BarStore(tmp_path), tmp_path / "inbox")
    assert (outcome.fetched, outcome.failed) == ({}, {})
