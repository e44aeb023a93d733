"""A month's decisions: what stands, what is promoted, and where production points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.champions import (
    Occasion,
    decide_month,
    rolled_back,
    standing,
    to_forecast,
)
from retrain_assets.evaluation.promotion import Rules
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version

CLOSE = 50.0
BASE = Version("kronos", "nano", "f", settings={"t": 1}, context=128)
RULES = Rules()
NOW = Occasion("AAA", "2023-08", "2023-08-31", final=True, live=True, decided_at="now")


def adapter(month: str, family: str = "kronos") -> Version:
    return replace(BASE, family=family, month=month, adapter={"digest": f"{family} {month}"})


def comparison(
    month: str = "2023-08", *, gain: float = 0.0, against_naive: float = -0.1, test_gain: float = 0
) -> dict[str, Any]:
    """A record in which the candidate errs less than its base by `gain`, the base less than naive
    by `against_naive`; alike at every origin but for some noise."""
    draw = np.random.default_rng(int(month[-2:]))

    def table(origins: int, gain: float) -> dict[str, Any]:
        naive = CLOSE * draw.uniform(0.02, 0.04, origins)
        base = naive * (1 - against_naive) * (1 + draw.normal(0, 0.01, origins))
        chosen = base * (1 - gain) * (1 + draw.normal(0, 0.01, origins))
        return {
            "cutoff": [f"{month}-{day:02d}" for day in range(1, origins + 1)],
            "origin_close": [CLOSE] * origins,
            "naive": naive.tolist(),
            "kronos.zero_shot": base.tolist(),
            "kronos.chosen": chosen.tolist(),
        }

    return {
        "symbol": "AAA",
        "month": month,
        "losses": {"selection": table(26, gain), "test": table(3, test_gain or gain)},
        "zero_shot": {"kronos": BASE.to_json()},
        "last_month": {},
        "candidates": {"kronos": {"name": "kronos.chosen", "version": adapter(month).to_json()}},
    }


def decided(
    record: dict[str, Any] | None,
    previous: dict[str, Any] | None = None,
    *,
    occasion: Occasion = NOW,
    forecast: dict[str, Any] | None = None,
) -> dict[str, Any]:
    month = occasion.month if record is None else record["month"]
    return decide_month(
        replace(occasion, month=month),
        standing(previous, record),
        comparison=record,
        previous=previous,
        forecast=forecast or {},
        tried={},
        rules=RULES,
    )


def test_the_first_champion_is_the_base_and_the_first_in_production_naive() -> None:
    found = decided(comparison())
    assert Version.from_json(found["families"]["kronos"]["champion"]) == BASE
    assert found["pointer"]["to"] == "naive"
    assert not found["families"]["kronos"]["decision"]["promote"]
    assert found["previous_month"] is None


def test_a_candidate_that_is_better_for_certain_takes_the_champions_place() -> None:
    found = decided(comparison(gain=0.3, against_naive=-0.1))
    state = found["families"]["kronos"]
    assert state["decision"]["promote"], state["decision"]["reason"]
    assert Version.from_json(state["champion"]) == adapter("2023-08")
    assert Version.from_json(state["incumbent"]) == BASE
    assert state["since"] == "2023-08"


def test_production_points_to_a_champion_that_is_better_than_naive_for_certain() -> None:
    found = decided(comparison(gain=0.3, against_naive=0.1))
    assert found["pointer"]["to"] == "kronos"
    assert Version.from_json(found["pointer"]["version"]) == adapter("2023-08")
    assert Version.from_json(found["pointer"]["incumbent"]) == NAIVE_VERSION


def test_a_champion_that_is_worse_than_naive_is_not_put_into_production() -> None:
    found = decided(comparison(gain=0.3, against_naive=-0.9))
    assert found["families"]["kronos"]["decision"]["promote"]
    assert found["pointer"]["to"] == "naive"


def test_production_goes_back_to_naive_on_evidence() -> None:
    july = decided(comparison("2023-07", gain=0.3, against_naive=0.1))
    bad = comparison("2023-08", against_naive=-0.5)
    july_losses = {
        segment: 1.5 * np.array(table["naive"]) / CLOSE for segment, table in bad["losses"].items()
    }
    found = decided(bad, july, forecast={adapter("2023-07").id: july_losses})
    assert july["pointer"]["to"] == "kronos"
    assert found["pointer"]["to"] == "naive"
    assert found["pointer"]["since"] == "2023-08"


def test_the_test_of_all_months_may_object() -> None:
    worse = decided(comparison(gain=0.3, test_gain=-0.5))
    assert not worse["families"]["kronos"]["decision"]["promote"]
    assert "test origins" in worse["families"]["kronos"]["decision"]["reason"]


def test_the_month_begins_with_what_the_one_before_decided() -> None:
    july = decided(comparison("2023-07", gain=0.3))
    august = comparison("2023-08")
    before = standing(july, august)
    (incumbent,) = to_forecast(before, august)
    assert incumbent == adapter("2023-07")
    with pytest.raises(BadInput, match=r"kronos adapter of 2023-07 .* was not forecast"):
        decided(august, july)
    same = {
        segment: np.array(table["kronos.chosen"]) / CLOSE
        for segment, table in august["losses"].items()
    }
    found = decided(august, july, forecast={incumbent.id: same})
    assert Version.from_json(found["families"]["kronos"]["champion"]) == incumbent
    assert found["families"]["kronos"]["since"] == "2023-07"
    assert found["previous_month"] == "2023-07"
    assert len(found["history"]["kronos"]) == 6
    assert [row["month"] for row in found["history"]["kronos"]] == ["2023-07"] * 3 + ["2023-08"] * 3


def test_an_incumbent_that_the_comparison_has_is_not_forecast_again() -> None:
    july = decided(comparison("2023-07", gain=0.3))
    august = comparison("2023-08") | {"last_month": {"kronos": adapter("2023-07").to_json()}}
    for table in august["losses"].values():
        table["kronos.last_month"] = table["kronos.chosen"]
    assert to_forecast(standing(july, august), august) == []
    found = decided(august, july)
    assert (
        found["losses"]["test"]["kronos.incumbent"] == found["losses"]["test"]["kronos.candidate"]
    )


def test_losses_are_kept_in_price_units_and_the_pointers_are_of_the_month_before() -> None:
    record = comparison(gain=0.3, against_naive=0.1)
    found = decided(record)
    assert found["pointer"]["to"] == "kronos"
    for segment, table in found["losses"].items():
        known = record["losses"][segment]
        assert table["kronos.candidate"] == pytest.approx(known["kronos.chosen"])
        assert table["pointer.incumbent"] == pytest.approx(known["naive"])


def test_a_month_that_is_not_over_decides_nothing() -> None:
    running = replace(NOW, final=False, live=False)
    found = decided(comparison(gain=0.5, against_naive=0.5), occasion=running)
    assert found["pointer"]["to"] == "naive"
    assert "not over" in found["families"]["kronos"]["decision"]["reason"]


def test_without_a_comparison_everything_stays_and_it_is_said() -> None:
    july = decided(comparison("2023-07", gain=0.3, against_naive=0.1))
    found = decided(None, july)
    assert found["pointer"]["to"] == "kronos"
    assert found["families"]["kronos"]["champion"] == july["families"]["kronos"]["champion"]
    assert "no comparison of this month" in found["pointer"]["decision"]["reason"]
    assert found["history"] == july["history"]
    assert decided(None)["families"] == {}


def test_a_rollback_puts_an_earlier_decision_back() -> None:
    june = decided(comparison("2023-06"))
    july = decided(comparison("2023-07", gain=0.3, against_naive=0.1), june)
    found = rolled_back(NOW, june, july, standing(july, None))
    assert Version.from_json(found["families"]["kronos"]["champion"]) == BASE
    assert Version.from_json(found["families"]["kronos"]["incumbent"]) == adapter("2023-07")
    assert found["pointer"]["to"] == "naive"
    assert found["rolled_back_to"] == "2023-06"
    assert found["history"] == july["history"]


def test_old_months_leave_the_pool() -> None:
    old = decided(comparison("2021-07"))
    found = decided(comparison("2023-08"), old)
    assert {row["month"] for row in found["history"]["kronos"]} == {"2023-08"}
