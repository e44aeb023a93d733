"""Leaps that no market made: which are told apart from real moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrain_assets.market.bars import BarStore
from retrain_assets.market.jumps import SPLITS, find_jumps
from retrain_assets_tests.market.made import PRICES, walk


def scaled(factor: float, *, start: int = 20, stop: int = 40, count: int = 40) -> pd.DataFrame:
    bars = walk(count)
    bars.loc[start : stop - 1, PRICES] *= factor
    return bars


@pytest.mark.parametrize("factor", SPLITS)
def test_every_split_is_found_both_ways(factor: int) -> None:
    for ratio in (1 / factor, float(factor)):
        (leap,) = find_jumps(scaled(ratio))
        assert (leap.row, leap.split, leap.returns_on) == (20, factor, None)
        assert leap.session == pd.Timestamp("2023-08-01")
        assert leap.ratio == pytest.approx(ratio, rel=0.05)


def test_a_split_day_with_a_large_move_is_found() -> None:
    # Tesla, unadjusted: 2213.40 on 2020-08-28, then 444.61 to 498.32 after a 5:1 split.
    bars = walk(2, after="2020-08-27")
    bars[PRICES] = [[2295.12, 2318.49, 2186.52, 2213.40], [444.61, 500.14, 440.11, 498.32]]
    (leap,) = find_jumps(bars)
    assert leap.split == 5
    assert str(leap) == (
        "2020-08-31: close is 1/4.44 of the close before: a 5:1 split that the prices before it "
        "are not adjusted for?"
    )


@pytest.mark.parametrize(
    ("closes", "opens"),
    [
        # Netflix 2022-04-20, GameStop 2021-01-27 and 28, Netflix 2013-01-24.
        ([348.61, 226.19], [333.22, 245.20]),
        ([147.98, 347.51, 193.60], [88.56, 354.83, 265.00]),
        ([103.26, 146.86], [103.30, 136.00]),
    ],
)
def test_real_moves_are_left_alone(closes: list[float], opens: list[float]) -> None:
    bars = walk(len(closes)).assign(open=opens, close=closes)
    assert find_jumps(bars) == []


def test_a_crash_within_the_session_is_no_split() -> None:
    bars = walk()
    bars.loc[20, ["low", "close"]] *= 0.5
    bars.loc[21:, PRICES] *= 0.5
    assert find_jumps(bars) == []


@pytest.mark.parametrize("ratio", [1 / 400, 1 / 13, 13, 400])
def test_tenfold_leaps_are_another_level(ratio: float) -> None:
    (leap,) = find_jumps(scaled(ratio))
    assert leap.split is None
    assert "another instrument, or another unit?" in str(leap)


def test_a_leap_that_returns_is_told_as_one() -> None:
    (leap,) = find_jumps(scaled(1 / 3, start=20, stop=23))
    assert leap.returns_on == pd.Timestamp("2023-08-04")
    assert "returns on 2023-08-04: rows of another instrument?" in str(leap)


def test_a_leap_returns_only_once() -> None:
    bars = scaled(1 / 2, start=10, stop=20)
    bars.loc[30:, PRICES] *= 2
    pair, last = find_jumps(bars)
    assert (pair.row, pair.returns_on) == (10, pd.Timestamp("2023-08-01"))
    assert (last.row, last.returns_on) == (30, None)


def test_prices_across_a_long_hole_are_not_compared() -> None:
    bars = scaled(1 / 4)
    assert len(find_jumps(bars.drop(index=range(12, 20)))) == 1
    assert find_jumps(bars.drop(index=range(8, 20))) == []


def test_few_bars_have_no_leap() -> None:
    assert find_jumps(walk(1)) == []
    assert find_jumps(walk(1).iloc[:0]) == []


def test_real_histories_have_none_and_unadjusted_ones_do() -> None:
    store = BarStore(Path(__file__).parents[2] / "data" / "market")
    for symbol in store.symbols():
        assert find_jumps(store.read(symbol)) == []
    # Undo the adjustment of Apple's two splits, 7:1 on 2014-06-09 and 4:1 on 2020-08-31.
    bars = store.read("AAPL")
    raw = np.where(bars["session"] < "2020-08-31", 4, 1) * np.where(
        bars["session"] < "2014-06-09", 7, 1
    )
    bars[PRICES] = bars[PRICES].mul(raw, axis=0)
    found = [(f"{leap.session:%Y-%m-%d}", leap.split) for leap in find_jumps(bars)]
    assert found == [("2014-06-09", 7), ("2020-08-31", 4)]
