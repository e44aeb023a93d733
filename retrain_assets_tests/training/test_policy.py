"""The training policy: the guide's tables and examples, boundaries, caps and overrides."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.policy import (
    PlanOverrides,
    TrainingPlan,
    difficulty,
    plan,
    prediction_length,
    size_tier,
)

ROOMY = ModelLimits(max_context=4096)
SHORT = ModelLimits(max_context=512)


def test_the_guides_example_nvda() -> None:
    assert plan(1707, 15.43, "kronos", ROOMY) == TrainingPlan(
        family="kronos",
        n_bars=1707,
        baseline_mae_pct=15.43,
        difficulty="hard",
        context=1024,
        horizon=64,
        base_epochs=30,
        extended_epochs=45,
        epochs=55,
        rank=16,
        alpha=32,
        dropout=0.05,
        loss="heteroscedastic",
        learning_rate=1e-4,
        effective_batch=4,
        patience=5,
    )


def test_the_guides_example_tsla() -> None:
    overrides = PlanOverrides(epochs=50, rank=20, learning_rate=5e-5)
    table = plan(1707, 19.13, "toto", ROOMY)
    tsla = plan(1707, 19.13, "toto", ROOMY, overrides)
    assert (tsla.epochs, tsla.rank, tsla.alpha, tsla.learning_rate) == (50, 20, 40, 5e-5)
    assert tsla.notes == (
        "epochs 55 -> 50: override",
        "rank 16 -> 20: override",
        "learning_rate 0.0001 -> 5e-05: override",
    )
    changed = {"epochs", "rank", "alpha", "learning_rate", "notes"}
    before, after = table.to_json(), tsla.to_json()
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize(
    ("n_bars", "context", "horizon", "base", "extended"),
    [
        (0, 256, 16, 15, 22),
        (499, 256, 16, 15, 22),
        (500, 512, 32, 20, 30),
        (999, 512, 32, 20, 30),
        (1000, 768, 48, 25, 37),
        (1499, 768, 48, 25, 37),
        (1500, 1024, 64, 30, 45),
        (2699, 1024, 64, 30, 45),
    ],
)
def test_size_table(n_bars: int, context: int, horizon: int, base: int, extended: int) -> None:
    got = plan(n_bars, 5.0, "kronos", ROOMY)
    assert (got.context, got.horizon, got.base_epochs, got.extended_epochs, got.epochs) == (
        context,
        horizon,
        base,
        extended,
        extended,
    )
    assert size_tier(n_bars).horizon == prediction_length(n_bars) == horizon


@pytest.mark.parametrize(
    ("mae_pct", "level", "rank", "rate", "loss", "bonus"),
    [
        (0.0, "easy", 8, 3e-4, "huber", 0),
        (7.999, "easy", 8, 3e-4, "huber", 0),
        (8.0, "medium", 12, 2e-4, "heteroscedastic", 0),
        (15.0, "medium", 12, 2e-4, "heteroscedastic", 0),
        (15.001, "hard", 16, 1e-4, "heteroscedastic", 10),
        (69.0, "hard", 16, 1e-4, "heteroscedastic", 10),
    ],
)
def test_difficulty_table(
    mae_pct: float, level: str, rank: int, rate: float, loss: str, bonus: int
) -> None:
    got = plan(1600, mae_pct, "kronos", ROOMY)
    assert difficulty(mae_pct) == got.difficulty == level
    assert (got.rank, got.alpha, got.learning_rate, got.loss) == (rank, 2 * rank, rate, loss)
    assert got.epochs == 45 + bonus


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -1.0])
def test_an_unknown_baseline_is_refused(unknown: float) -> None:
    with pytest.raises(BadInput, match="baseline error"):
        plan(1707, unknown, "kronos", ROOMY)


def test_context_is_capped_by_the_model_and_said() -> None:
    got = plan(1707, 15.43, "kronos", SHORT)
    assert (got.context, got.horizon) == (448, 64)
    assert got.notes == ("context 1024 -> 448: with 64 bars to predict the model takes 512",)
    assert plan(600, 5.0, "toto", ModelLimits(500, 64)).context == 448
    with pytest.raises(BadInput, match="prediction length of 385"):
        plan(1707, 5.0, "kronos", SHORT, PlanOverrides(prediction_length=385))


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ({"epochs": 7}, {"epochs"}),
        ({"rank": 32}, {"rank", "alpha"}),
        ({"learning_rate": 1e-5}, {"learning_rate"}),
        ({"dropout": 0.2}, {"dropout"}),
        ({"loss": "mse"}, {"loss"}),
        ({"context_length": 300}, {"context"}),
        ({"prediction_length": 20}, {"horizon"}),
        ({"effective_batch": 8}, {"effective_batch"}),
    ],
)
def test_an_override_replaces_its_field_and_nothing_else(
    override: dict[str, Any], changed: set[str]
) -> None:
    before = plan(1707, 10.0, "kronos", ROOMY).to_json()
    after = plan(1707, 10.0, "kronos", ROOMY, PlanOverrides(**override)).to_json()
    assert {name for name in before if before[name] != after[name]} == changed | {"notes"}
    assert next(iter(override.values())) in after.values()


def test_a_prediction_length_override_is_known_before_the_difficulty() -> None:
    assert prediction_length(400, PlanOverrides(prediction_length=128)) == 128
    assert prediction_length(400, PlanOverrides(epochs=3)) == 16


def test_epochs_are_scaled_unless_given() -> None:
    scaled = plan(1707, 15.43, "kronos", ROOMY, epochs_scale=0.1)
    assert scaled.epochs == round(5.5)
    assert scaled.notes == (f"epochs 55 -> {scaled.epochs}: scaled by 0.1",)
    assert plan(1707, 5.0, "kronos", ROOMY, epochs_scale=1e-6).epochs == 1
    given = plan(1707, 5.0, "kronos", ROOMY, PlanOverrides(epochs=9), epochs_scale=0.1)
    assert given.epochs == 9
    with pytest.raises(BadInput, match="epochs scale"):
        plan(1707, 5.0, "kronos", ROOMY, epochs_scale=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1001},
        {"epochs": 50.5},
        {"epochs": True},
        {"rank": 0},
        {"rank": 65},
        {"learning_rate": 0.0},
        {"learning_rate": 0.011},
        {"learning_rate": math.nan},
        {"learning_rate": "fast"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"loss": "l1"},
        {"context_length": 127},
        {"prediction_length": 0},
        {"effective_batch": 257},
    ],
)
def test_an_override_out_of_range_names_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        PlanOverrides(**wrong)


def test_pydantic_reads_overrides_and_refuses_unknown_fields() -> None:
    adapter = TypeAdapter(PlanOverrides)
    assert adapter.validate_python({"rank": 20}) == PlanOverrides(rank=20)
    with pytest.raises(ValidationError, match="ranks"):
        adapter.validate_python({"ranks": 20})
    with pytest.raises(BadInput, match="rank is 99"):
        adapter.validate_python({"rank": 99})


def test_json_round_trip_and_foreign_fields() -> None:
    got = plan(1707, 15.43, "kronos", SHORT, PlanOverrides(rank=20))
    stored = json.loads(json.dumps(got.to_json()))
    assert TrainingPlan.from_json(stored) == got
    del stored["rank"]
    with pytest.raises(BadInput, match=r"lacks \['rank'\] and has unknown \['ranks'\]"):
        TrainingPlan.from_json(stored | {"ranks": 20})
