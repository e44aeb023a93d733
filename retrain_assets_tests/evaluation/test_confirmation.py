"""A suspicion on a longer window: where it may look, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.confirmation import against, confirmation_origins
from retrain_assets.evaluation.rescoring import losses_at
from retrain_assets.evaluation.versions import Version
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.splits import Split, make_split
from retrain_assets_tests.evaluation.forecasters import PathForecaster
from retrain_assets_tests.tiny import random_walk


@pytest.fixture
def split() -> Split:
    limits = ModelLimits(max_context=512)
    return make_split(600, context=128, horizon=64, holdout_days=7, limits=limits)


def test_forecasts_cover_the_last_sessions_one_after_the_other(split: Split) -> None:
    assert confirmation_origins(split, 28) == [571, 578, 585, 592]
    assert confirmation_origins(split, 71)[0] == 529


@pytest.mark.parametrize("sessions", [0, 6, 72])
def test_a_window_without_a_forecast_or_with_a_choice_in_it_is_refused(
    split: Split, sessions: int
) -> None:
    with pytest.raises(BadInput, match=f"holdout_days is {sessions}: give 7 to 71"):
        confirmation_origins(split, sessions)


def test_the_longest_window_stays_out_of_the_selection(split: Split) -> None:
    assert confirmation_origins(split, split.test.bars)[0] >= split.selection.stop - 1


def test_losses_are_of_whole_forecasts_relative_to_the_close_at_the_origin() -> None:
    bars = random_walk(300)
    close = bars["close"].to_numpy()
    above = PathForecaster("above", lambda window: np.full(7, 1.1 * window.origin_close))
    version = Version("some", context=64)
    losses = losses_at(bars, [285, 292], 7, {"some.candidate": (above, version)}, symbol="AAA")
    for place, origin in enumerate((285, 292)):
        actual = close[origin + 1 : origin + 8]
        naive = np.abs(actual - close[origin]).mean() / close[origin]
        own = np.abs(actual - 1.1 * close[origin]).mean() / close[origin]
        assert losses["naive"][place] == pytest.approx(naive)
        assert losses["some.candidate"][place] == pytest.approx(own)


def test_a_candidate_is_held_against_its_own_rivals_and_naive() -> None:
    draw = np.random.default_rng(0)
    naive = draw.uniform(0.02, 0.04, 10)
    losses = {
        "naive": naive,
        "a.candidate": naive * 1.2 + draw.normal(0, 1e-3, 10),
        "a.incumbent": naive,
        "b.candidate": naive * 0.9,
    }
    rows = against(losses)
    assert [(row["family"], row["against"]) for row in rows] == [
        ("a", "naive"),
        ("a", "incumbent"),
        ("b", "naive"),
    ]
    assert rows[0]["change_pct"] == pytest.approx(20, abs=2)
    assert rows[0]["p_value"] < 0.001
    assert rows[2]["p_value"] > 0.999


def test_few_forecasts_have_no_p_value() -> None:
    four = np.array([0.01, 0.02, 0.03, 0.02])
    (row,) = against({"naive": four, "a.candidate": 2 * four})
    assert row["p_value"] is None
    assert row["origins"] == 4
