"""Scores by hand on a table small enough to do so."""

from __future__ import annotations

import json
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import scoringrules
from utilsforecast import losses

from retrain_assets.evaluation.comparison import GROUP, compare
from retrain_assets.evaluation.metrics import one_step_scale, origin_table, scores
from retrain_assets.evaluation.pooling import relative_losses, skill_interval
from retrain_assets.evaluation.significance import origin_losses
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
            "m/q10": [10.0, 11.0, 16.0, 15.0],
            "m/q25": [10.0, 11.0, 18.0, 15.0],
            "m/q75": [12.0, 13.0, 19.0, 17.0],
            "m/q90": [12.0, 14.0, 19.0, 17.0],
        }
    )
    frame[frame.columns[1:]] *= scale
    for name in ("median", "q10", "q25", "q75", "q90"):
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
    assert m["coverage_80"] == 0.75
    # Twice the mean pinball loss of five levels: .7, .8, 3.05 and .7 summed over them.
    assert m["crps"] == pytest.approx(2 / 5 * (0.7 + 0.8 + 3.05 + 0.7) / 4)
    assert base["crps"] == pytest.approx(base["mae"])
    assert got[["mase", "skill_low", "skill_high"]].isna().all(axis=None)


def test_mase_divides_by_the_symbols_own_scale() -> None:
    frame = pd.concat([table(symbol) for symbol in ("A", "B", "C", "D")], ignore_index=True)
    got = scores(frame, ["naive", "m"], scale={"A": 4.0, "B": 0.5, "C": 0.0})
    mase = got.pivot_table(index="unique_id", columns="candidate", values="mase", dropna=False)
    assert mase.loc["A"].to_dict() == {"m": 0.75 / 4, "naive": 2.0 / 4}
    assert mase.loc["B"].to_dict() == {"m": 1.5, "naive": 4.0}
    # Closes that never change, and a symbol without a scale.
    assert got.loc[got["unique_id"].isin(["C", "D"]), "mase"].isna().all()


def test_the_scale_is_the_mean_change_before_the_selection() -> None:
    """As utilsforecast has it, with the bars up to the first selection target to train on."""
    bars, split = random_walk(600, 3), split_of(600)
    scale = one_step_scale(bars, split)
    forecasts = compare(bars, split, [naive(128)], symbol="A", seed=0).forecasts
    known = bars[bars["session"] <= forecasts["cutoff"].min()]
    assert len(known) == split.selection.start
    train = pd.DataFrame({"unique_id": "A", "ds": known["session"], "y": known["close"]})
    got = scores(forecasts, ["naive"], scale={"A": scale})
    for (_, segment, scope, _), rows in forecasts.groupby(GROUP):
        pooled = rows[["unique_id", "ds", "y", "naive"]]
        theirs = losses.mase(pooled, ["naive"], seasonality=1, train_df=train)["naive"].item()
        own = got[(got["segment"] == segment) & (got["scope"] == scope)]["mase"].item()
        assert own == pytest.approx(theirs)
    changed = bars.copy()
    changed.loc[split.selection.start :, "close"] *= 10
    assert one_step_scale(changed, split) == scale
    changed.loc[split.selection.start - 1, "close"] *= 10
    assert one_step_scale(changed, split) > scale


def test_crps_is_that_of_the_libraries() -> None:
    bars, split = random_walk(600, 4), split_of(600)
    forecasts = compare(bars, split, [naive(128)], symbol="A", seed=0).forecasts
    got = scores(forecasts, ["naive"]).set_index(["segment", "scope"])["crps"]
    columns = [f"naive/{part}" for part in ("q10", "q25", "median", "q75", "q90")]
    levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    for key, rows in forecasts.groupby(["segment", "scope"]):
        each = scoringrules.crps_quantile(rows["y"].to_numpy(), rows[columns].to_numpy(), levels)
        assert got[key] == pytest.approx(each.mean())
        pooled = rows.drop(columns="cutoff")
        pinball = losses.mqloss(pooled, {"naive": columns}, levels)["naive"].item()
        assert got[key] == pytest.approx(2 * pinball)
    # A distribution that is stated beats its own middle alone.
    assert got["selection", "holdout"] < scores(forecasts, ["naive"])["mae_median"].iloc[0]


def drawn(rng: np.random.Generator, symbols: int) -> pd.DataFrame:
    """One forecast of one step for each symbol, its five quantiles drawn and sorted."""
    parts = ("q10", "q25", "median", "q75", "q90")
    values = np.sort(rng.uniform(1, 100, (symbols, 5)), axis=1)
    frame = pd.DataFrame(values, columns=[f"m/{part}" for part in parts])
    return frame.assign(
        unique_id=[f"S{number}" for number in range(symbols)],
        **{"segment": "test", "scope": "holdout", "horizon": 1, "cutoff": 0, "step": 1, "ds": 1},
        **{"origin_close": 1.0, "naive": 1.0, "y": rng.uniform(1, 100, symbols), "m": 1.0},
    )


def test_crps_of_a_point_is_its_absolute_error() -> None:
    frame = drawn(np.random.default_rng(0), 40)
    quantiles = [column for column in frame.columns if column.startswith("m/")]
    frame = frame.assign(**dict.fromkeys(("m", *quantiles), frame["m/q25"]))
    got = scores(frame, ["m"])
    np.testing.assert_allclose(got["crps"], got["mae"])


def test_crps_grows_as_a_distribution_moves_away() -> None:
    """Beyond its outermost quantile every price further off costs as much as it is off."""
    frame = drawn(np.random.default_rng(1), 40)
    near = frame.assign(y=frame[["m/q90", "y"]].max(axis=1))
    far = near.assign(y=near["y"] + np.arange(1, 41))
    cost = scores(far, ["m"])["crps"] - scores(near, ["m"])["crps"]
    np.testing.assert_allclose(cost, np.arange(1, 41))
    assert (scores(frame, ["m"])["crps"] >= 0).all()


def test_skill_has_an_interval_where_origins_are_many_and_apart() -> None:
    bars, split = random_walk(600, 5), split_of(600)
    own = [naive(128), candidate("k.adapter", drift, 128)]
    forecasts = pd.concat(
        [compare(bars, split, own, symbol=symbol, seed=0).forecasts for symbol in ("A", "B")],
        ignore_index=True,
    )
    other = forecasts["unique_id"] == "B"
    forecasts.loc[other, "k.adapter"] += np.linspace(0, 5, other.sum())
    got = scores(forecasts, ["naive", "k.adapter"])
    assert (got.query("scope == 'plan'")["origins"] == 8).all()
    unknown = (got["scope"] == "plan") | (got["segment"] == "test")
    assert got.loc[unknown, ["skill_low", "skill_high"]].isna().all(axis=None)
    known = got[~unknown].set_index(["unique_id", "candidate"])
    assert len(known) == 4
    for symbol, rows in forecasts.groupby("unique_id"):
        each = origin_losses(rows, ["naive", "k.adapter"], segment="selection")
        row = known.loc[(symbol, "k.adapter")]
        limits = (row["skill_low"], row["skill_high"])
        assert limits == pytest.approx(skill_interval(each["k.adapter"], each["naive"]))
        assert limits[0] < row["skill"] < limits[1]
        assert (known.loc[(symbol, "naive"), ["skill_low", "skill_high"]] == 0).all()
    assert known.loc[("A", "k.adapter"), "skill_low"] != known.loc[("B", "k.adapter"), "skill_low"]


def test_the_losses_of_a_record_are_those_of_the_holdout_forecasts() -> None:
    bars, split = random_walk(600, 6), split_of(600)
    own = [naive(128), candidate("k.adapter", drift, 128)]
    forecasts = compare(bars, split, own, symbol="A", seed=0).forecasts
    names = ["k.adapter", "naive"]
    close = bars["close"].to_numpy()
    counts: dict[Literal["selection", "test"], int] = {"selection": 26, "test": 3}
    for segment, count in counts.items():
        origins = split.holdout_origins(segment)
        # Rows in another order, as a file might give them.
        shuffled = forecasts.sample(frac=1, random_state=0)
        got = origin_table(shuffled, names, segment=segment)
        assert json.loads(json.dumps(got, allow_nan=False)) == got
        assert list(got) == ["cutoff", "origin_close", *names]
        assert {len(values) for values in got.values()} == {count}
        assert got["cutoff"] == [f"{bars['session'][o]:%Y-%m-%d}" for o in origins]
        assert got["origin_close"] == [close[o] for o in origins]
        naive_loss = [np.abs(close[o + 1 : o + 8] - close[o]).mean() for o in origins]
        assert got["naive"] == pytest.approx(naive_loss)
        relative = relative_losses(got)["naive"]
        assert relative.tolist() == pytest.approx(np.divide(naive_loss, got["origin_close"]))
    two = pd.concat([forecasts, forecasts.assign(unique_id="B")])
    with pytest.raises(ValueError, match="one symbol"):
        origin_table(two, names, segment="test")


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
    np.testing.assert_allclose(big["crps"].to_numpy(), 10 * small["crps"].to_numpy())
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
