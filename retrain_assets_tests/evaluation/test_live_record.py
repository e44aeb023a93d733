"""Live records: which forecasts a month has, and when a version counts as drifted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from retrain_assets.evaluation.live_record import drift, live_entry, live_origins


def test_forecasts_follow_one_another_from_the_cut_before_the_month() -> None:
    sessions = pd.bdate_range("2023-07-03", "2023-08-31")
    origins = live_origins(sessions, pd.Timestamp("2023-07-31"), 7)
    made = [f"{sessions[o]:%Y-%m-%d}" for o in origins]
    assert made == ["2023-07-31", "2023-08-09", "2023-08-18"]
    assert origins[-1] + 7 <= len(sessions) - 1


@pytest.mark.parametrize(("last", "count"), [("2023-08-08", 0), ("2023-08-09", 1)])
def test_a_forecast_needs_all_of_its_sessions(last: str, count: int) -> None:
    sessions = pd.bdate_range("2023-07-03", last)
    assert len(live_origins(sessions, pd.Timestamp("2023-07-31"), 7)) == count


def test_a_cut_before_all_bars_gives_no_forecast() -> None:
    sessions = pd.bdate_range("2023-08-01", "2023-08-31")
    assert live_origins(sessions, pd.Timestamp("2023-07-31"), 7) == []


def entry(own: np.ndarray, naive: np.ndarray) -> dict[str, object]:
    return live_entry({"pointer": own, "naive": naive}, "pointer")


def test_an_entry_holds_errors_and_skill() -> None:
    found = entry(np.array([0.01, 0.02]), np.array([0.02, 0.04]))
    assert found["mae_pct"] == pytest.approx(1.5)
    assert found["naive_mae_pct"] == pytest.approx(3.0)
    assert found["skill"] == pytest.approx(0.5)


def selected(gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    naive = draw.uniform(0.02, 0.04, 26)
    return naive * (1 - gain) + draw.normal(0, 0.001, 26), naive


def test_a_version_that_stopped_helping_has_drifted() -> None:
    naive = np.array([0.03, 0.025, 0.035])
    found = drift([entry(naive * 1.15, naive), entry(naive * 1.2, naive)], selected(0.2))
    assert found.drifted
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert "-17.5 % on 6 live forecasts" in found.reason


def test_a_stormy_month_alone_is_no_drift() -> None:
    naive = np.array([0.09, 0.12, 0.10])
    found = drift([entry(naive * 0.8, naive)], selected(0.2))
    assert not found.drifted


def test_chance_seldom_looks_like_drift() -> None:
    draw, hits = np.random.default_rng(3), 0
    for _ in range(200):
        naive = draw.uniform(0.02, 0.04, 29)
        own = naive * 0.95 + draw.normal(0, 0.002, 29)
        live = entry(own[26:], naive[26:])
        hits += drift([live], (own[:26], naive[:26])).drifted
    assert hits <= 20


def test_too_few_forecasts_say_nothing() -> None:
    two = entry(np.array([0.9, 0.9]), np.array([0.03, 0.03]))
    assert drift([two], selected(0.2)).p_value is None
    assert drift([], selected(0.2)).p_value is None
    assert drift([two, two], None).reason == "nothing was selected"


def test_a_version_that_forecasts_as_naive_does_has_not_drifted() -> None:
    naive = np.array([0.03, 0.02, 0.04])
    same = np.full(26, 0.03)
    assert not drift([entry(naive, naive)], (same, same)).drifted
