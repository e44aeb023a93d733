"""Scores by hand on a table small enough to do so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.metrics import scores
from retrain_assets_tests.evaluation.forecasters import (
    candidate,
    drift,
    naive,
    random_walk,
    split_of,
)


def table(symbol: str = "A", *, scale: float = 1.0) -> pd.DataFrame:
    """Two origins of two steps each, candidate `m` beside naive."""
    frame = pd.DataFrame(
        {
            "cutoff": pd.to_datetime(["2024-01-02"] * 2 + ["2024-01-04"] * 2),
            "origin_close": [10.0, 10.0, 20.0, 20.0],
            "y": [11.0, 13.0, 20.0, 16.0],
            "naive": [10.0, 10.0, 20.0, 20.0],
            "m": [11.0, 12.0, 18.0, 16.0],
            "m/median": [11.0, 13.0, 19.0, 16.0],
            "m/q10": [10.0, 11.0, 21.0, 15.0],
            "m/q90": [12.0, 12.0, 22.0, 17.0],
        }
    )
    frame[frame.columns[1:]] *= scale
    for name in ("median", "q10", "q90"):
        frame[f"naive/{name}"] = frame["naive"]
    frame = frame.assign(unique_id=symbol, segment="test", scope="holdout", horizon=2)
    return frame.assign(step=[1, 2, 1, 2], ds=frame["cutoff"])


def test_by_hand() -> None:
    got = scores(table(), ["naive", "m"]).set_index("candidate")
    m, base = got.loc["m"], got.loc["naive"]
    # Errors of m are 0, 1, 2, 0 and of naive 1, 3, 0, 4; the actual closes add up to 60.
    assert m["origins"] == base["origins"] == 2
    assert (m["mae"], base["mae"]) == (0.75, 2.0)
    assert m["mae_median"] == 0.25
    assert m["mae_pct"] == pytest.approx(100 * 3 / 60)
    assert m["return_mae"] == pytest.approx((0 + 0.1 + 0.1 + 0) / 4)
    assert m["rmse"] == pytest.approx((5 / 4) ** 0.5)
    assert m["skill"] == pytest.approx(1 - 3 / 8)
    assert base["skill"] == 0
    assert m["coverage_80"] == 0.5


def test_groups_and_candidates_keep_their_order() -> None:
    frame = pd.concat([table("ZZ"), table("AA", scale=10)], ignore_index=True)
    got = scores(frame, ["naive", "m"])
    assert list(zip(got["unique_id"], got["candidate"], strict=True)) == [
        ("ZZ", "naive"),
        ("ZZ", "m"),
        ("AA", "naive"),
        ("AA", "m"),
    ]
    big, small = got[got["unique_id"] == "AA"], got[got["unique_id"] == "ZZ"]
    np.testing.assert_allclose(big["mae"].to_numpy(), 10 * small["mae"].to_numpy())
    for free in ("mae_pct", "return_mae", "skill", "coverage_80"):
        np.testing.assert_allclose(big[free].to_numpy(), small[free].to_numpy())


def test_skill_over_a_naive_that_never_errs_is_unknown() -> None:
    frame = table().assign(naive=lambda f: f["y"])
    got = scores(frame, ["naive", "m"]).set_index("candidate")
    assert got["skill"].isna().all()


def test_the_table_of_a_comparison() -> None:
    bars, split = random_walk(600, 0), split_of(600)
    forecasts = compare(
        bars, split, [naive(128), candidate("k.adapter", drift, 128)], symbol="A", seed=0
    ).forecasts
    got = scores(forecasts, ["naive", "k.adapter"])
    assert len(got) == 3 * 2
    part = forecasts.query("segment == 'test' and scope == 'plan'")
    error = (part["k.adapter"] - part["y"]).abs()
    row = got.query("segment == 'test' and scope == 'plan' and candidate == 'k.adapter'")
    assert row["mae"].item() == pytest.approx(error.mean())
    assert row["skill"].item() == pytest.approx(
        1 - error.sum() / (part["naive"] - part["y"]).abs().sum()
    )
    cover = got.query("candidate == 'naive' and segment == 'selection'")["coverage_80"].item()
    assert 0.6 < cover < 0.95
