"""The escalation ladder: what each rung changes, their order, and when there is enough."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.ladder import (
    POLICY,
    Rung,
    RungResult,
    ladder,
    merged,
    next_rung,
    on_rung,
    stopped,
)
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets.training.policy import Loss, PlanOverrides, TrainingPlan, plan

ROOMY = ModelLimits(max_context=4096)
EASY, MEDIUM, HARD = 5.0, 10.0, 20.0


def planned(mae_pct: float = HARD, own: PlanOverrides | None = None) -> TrainingPlan:
    return plan(1707, mae_pct, "kronos", ROOMY, own)


def names(of: TrainingPlan) -> list[str]:
    return [rung.name for rung in ladder(of)]


def results(*losses: float | None, of: TrainingPlan) -> list[RungResult]:
    """The plan's own result and those of the first rungs, in the ladder's order."""
    return [RungResult(n, loss) for n, loss in zip([POLICY, *names(of)], losses, strict=False)]


def test_the_ladders_of_the_three_difficulties() -> None:
    assert names(planned(EASY)) == [
        *("loss_heteroscedastic", "half_rate", "rank_16", "more_dropout", "loss_mse", "rank_32"),
        "more_epochs",
    ]
    assert names(planned(MEDIUM)) == [
        *("loss_huber", "half_rate", "rank_24", "more_dropout", "loss_mse", "rank_32"),
        "more_epochs",
    ]
    assert names(planned(HARD)) == [
        *("loss_huber", "half_rate", "rank_32", "more_dropout", "loss_mse", "more_epochs"),
    ]


def test_the_values_are_the_guides() -> None:
    values = {rung.name: rung.overrides for rung in ladder(planned(HARD))}
    assert values == {
        "loss_huber": PlanOverrides(loss="huber"),
        "half_rate": PlanOverrides(learning_rate=5e-5),
        "rank_32": PlanOverrides(rank=32),
        "more_dropout": PlanOverrides(dropout=0.15),
        "loss_mse": PlanOverrides(loss="mse"),
        "more_epochs": PlanOverrides(epochs=110),
    }


@pytest.mark.parametrize("mae_pct", [EASY, MEDIUM, HARD])
@pytest.mark.parametrize("own", [PlanOverrides(), PlanOverrides(rank=4, context_length=300)])
def test_a_rung_changes_what_it_says_and_nothing_else(mae_pct: float, own: PlanOverrides) -> None:
    before = planned(mae_pct, own).to_json()
    fields = {
        "loss": {"loss"},
        "rank": {"rank", "alpha"},
        "half": {"learning_rate"},
        "more_dropout": {"dropout"},
        "more_epochs": {"epochs"},
    }
    for rung in ladder(planned(mae_pct, own)):
        refined = on_rung(planned(mae_pct, own), rung)
        after = refined.to_json()
        changed = {name for name in before if before[name] != after[name]} - {"notes"}
        expected = next(f for start, f in fields.items() if rung.name.startswith(start))
        assert changed == expected, rung.name
        for name in changed:
            assert f"{shown(before[name])} -> {shown(after[name])}" in rung.reason
        assert refined.notes[:-1] == planned(mae_pct, own).notes
        assert refined.notes[-1].endswith(f": rung {rung.name}")
        # As if the stock had these overrides of its own.
        again = planned(mae_pct, merged(own, rung)).to_json()
        assert after | {"notes": []} == again | {"notes": []}


def shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def test_what_is_at_its_bound_has_no_rung() -> None:
    bounded = planned(own=PlanOverrides(rank=32, epochs=1000, dropout=0.45))
    assert names(bounded) == ["loss_huber", "half_rate", "loss_mse"]
    beyond = planned(own=PlanOverrides(rank=64))
    assert not [name for name in names(beyond) if name.startswith("rank")]
    near = {r.name: r.overrides for r in ladder(planned(own=PlanOverrides(rank=20, epochs=600)))}
    assert near["rank_32"].rank == 32
    assert near["more_epochs"].epochs == 1000


def test_the_other_losses_are_tried_whatever_the_plans_own_is() -> None:
    every: set[Loss] = {"huber", "heteroscedastic", "mse"}
    for own in every:
        rungs = ladder(planned(own=PlanOverrides(loss=own)))
        others = [rung.overrides.loss for rung in rungs if rung.name.startswith("loss")]
        assert len(others) == 2
        assert set(others) == every - {own}


def test_a_rung_wins_over_the_stocks_own_overrides_and_leaves_the_others() -> None:
    own = PlanOverrides(rank=20, epochs=50, learning_rate=5e-5)
    rung = Rung("x", PlanOverrides(rank=32, dropout=0.15), "")
    expected = PlanOverrides(rank=32, epochs=50, learning_rate=5e-5, dropout=0.15)
    assert merged(own, rung) == expected
    assert merged(own, Rung("x", PlanOverrides(dropout=0.0), "")).dropout == 0.0


def test_the_ladder_is_climbed_in_order_as_long_as_it_helps() -> None:
    of = planned(EASY)
    loss = 4.0
    for count, expected in enumerate(ladder(of)):
        done = results(*(loss * 0.9**i for i in range(count + 1)), of=of)
        assert stopped(of, done) is None
        assert next_rung(of, done) == expected
    everything = results(*(loss * 0.9**i for i in range(8)), of=of)
    assert stopped(of, everything) == "all 7 rungs were tried"
    assert next_rung(of, everything) is None


def test_two_rungs_in_a_row_without_gain_end_it() -> None:
    of = planned(HARD)
    assert next_rung(of, results(4.0, 4.1, of=of)) == ladder(of)[1]
    done = results(4.0, 4.1, 4.2, of=of)
    assert next_rung(of, done) is None
    reason = stopped(of, done)
    assert reason is not None
    assert "loss_huber and half_rate" in reason
    # A gain in between, or at the end, keeps it going; the count starts anew.
    assert next_rung(of, results(4.0, 4.1, 3.9, of=of)) == ladder(of)[2]
    assert next_rung(of, results(4.0, 3.5, 3.9, of=of)) == ladder(of)[2]
    assert next_rung(of, results(4.0, 3.5, 3.9, 3.8, of=of)) is None, "better than policy, not best"


def test_a_gain_that_means_nothing_is_none() -> None:
    of = planned(HARD)
    trifle, gain = 4.0 * (1 - NEGLIGIBLE / 2), 4.0 * (1 - 2 * NEGLIGIBLE)
    assert stopped(of, results(4.0, trifle, trifle, of=of)) is not None
    assert stopped(of, results(4.0, trifle, gain, of=of)) is None


def test_a_rung_that_could_not_be_trained_is_a_try_without_gain() -> None:
    of = planned(HARD)
    assert next_rung(of, results(4.0, None, of=of)) == ladder(of)[1]
    assert stopped(of, results(4.0, None, None, of=of)) is not None
    assert next_rung(of, results(None, 5.0, 4.0, of=of)) == ladder(of)[2]
    assert next_rung(of, results(None, None, of=of)) == ladder(of)[1], "the policy is no try"


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ([], "begins with"),
        ([RungResult("half_rate", 1.0)], "begins with"),
        ([RungResult(POLICY, 1.0), RungResult("rank_24", 1.0)], "rank_24.*not of this plan"),
        ([RungResult(POLICY, 1.0), RungResult(POLICY, 1.0)], "twice"),
        ([RungResult(POLICY, 1.0), *[RungResult("half_rate", 1.0)] * 2], "half_rate.*twice"),
    ],
)
def test_results_of_another_ladder_are_refused(done: list[RungResult], said: str) -> None:
    for ask in (stopped, next_rung):
        with pytest.raises(BadInput, match=said):
            ask(planned(HARD), done)


def test_a_result_survives_json() -> None:
    for result in (RungResult(POLICY, 4.25), RungResult("rank_32", None)):
        assert RungResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    for wrong in ({"name": "policy"}, {"name": "policy", "selection_loss": 1.0, "mae": 1.0}):
        with pytest.raises(BadInput, match="refine the stock again"):
            RungResult.from_json(wrong)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0])
def test_a_loss_that_is_no_loss_is_refused(loss: Any) -> None:
    with pytest.raises(BadInput, match="selection loss of policy"):
        RungResult(POLICY, loss)
