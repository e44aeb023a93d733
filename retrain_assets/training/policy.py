"""How one stock is trained: the retraining guide's two tables, and what may override them.

The number of bars sets context, prediction length and base epochs; the difficulty (error of
naive persistence over 64 bars, in %) sets LoRA rank, learning rate, loss and extra epochs.
`plan` is a pure function of numbers, so that the same inputs always train the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from retrain_assets.errors import BadInput
from retrain_assets.files import require_fields
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.splits import MIN_CONTEXT, capped_context

Difficulty = Literal["easy", "medium", "hard"]
Loss = Literal["huber", "heteroscedastic", "mse"]


class SizeTier(NamedTuple):
    """What a history of fewer than `below` bars is trained with; lengths in bars."""

    below: float
    context: int
    horizon: int
    base_epochs: int


class DifficultyTier(NamedTuple):
    """What a stock of one difficulty is trained with."""

    rank: int
    learning_rate: float
    loss: Loss
    epoch_bonus: int


SIZE_TIERS = (
    SizeTier(below=500, context=256, horizon=16, base_epochs=15),
    SizeTier(below=1000, context=512, horizon=32, base_epochs=20),
    SizeTier(below=1500, context=768, horizon=48, base_epochs=25),
    SizeTier(below=math.inf, context=1024, horizon=64, base_epochs=30),
)
DIFFICULTY_TIERS: dict[Difficulty, DifficultyTier] = {
    "easy": DifficultyTier(rank=8, learning_rate=3e-4, loss="huber", epoch_bonus=0),
    "medium": DifficultyTier(rank=12, learning_rate=2e-4, loss="heteroscedastic", epoch_bonus=0),
    "hard": DifficultyTier(rank=16, learning_rate=1e-4, loss="heteroscedastic", epoch_bonus=10),
}
EASY_BELOW_PCT = 8.0
HARD_ABOVE_PCT = 15.0
EPOCH_EXTENSION = 1.5
ALPHA_PER_RANK = 2
DROPOUT = 0.05
EFFECTIVE_BATCH = 4
PATIENCE = 5


@dataclass(frozen=True)
class PlanOverrides:
    """One stock's own values. Each replaces the tables' value of its field and nothing else.

    The one exception is alpha, which stays twice the rank. Lengths are capped by the model
    like the tables' own. Raises BadInput for a value of the wrong type or out of range.

    epochs: epochs to train at most, 1 to 1000; neither extended nor scaled any more.
    rank: LoRA rank, 1 to 64.
    learning_rate: peak learning rate, above 0, at most 0.01.
    dropout: LoRA dropout, 0 or more and below 1.
    loss: huber, heteroscedastic or mse.
    context_length: bars a window looks back on, at least 128.
    prediction_length: bars to predict, at least 1.
    effective_batch: windows per optimizer step, 1 to 256.
    """

    epochs: int | None = None
    rank: int | None = None
    learning_rate: float | None = None
    dropout: float | None = None
    loss: Loss | None = None
    context_length: int | None = None
    prediction_length: int | None = None
    effective_batch: int | None = None

    # Read by pydantic where a file of overrides is validated: an unknown field is an error.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _check_whole("epochs", self.epochs, 1, 1000)
        _check_whole("rank", self.rank, 1, 64)
        _check_whole("context_length", self.context_length, MIN_CONTEXT, None)
        _check_whole("prediction_length", self.prediction_length, 1, None)
        _check_whole("effective_batch", self.effective_batch, 1, 256)
        rate, dropout = self.learning_rate, self.dropout
        if rate is not None and not (_is_number(rate) and 0 < rate <= 1e-2):
            raise BadInput(f"learning_rate is {rate!r}: give a number above 0, at most 0.01")
        if dropout is not None and not (_is_number(dropout) and 0 <= dropout < 1):
            raise BadInput(f"dropout is {dropout!r}: give a number from 0 to below 1")
        if self.loss is not None and self.loss not in get_args(Loss):
            raise BadInput(f"loss is {self.loss!r}: choose one of {', '.join(get_args(Loss))}")


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides how one adapter of one stock is trained.

    family: model family (`kronos`). n_bars: bars up to the cut.
    baseline_mae_pct: naive persistence error over 64 bars that set the difficulty, in %.
    difficulty: easy, medium or hard.
    context, horizon: bars a window looks back on and predicts; the split may shrink context.
    base_epochs, extended_epochs: the table's epochs, and 1.5 times as many, rounded down.
    epochs: passes over the training windows at most.
    rank, alpha, dropout: of the LoRA adapter.
    loss: term added to the family's own loss. learning_rate: its peak.
    effective_batch: windows per optimizer step.
    patience: epochs without a better validation loss after which training stops.
    notes: every cap, override and scaling, in words.
    """

    family: str
    n_bars: int
    baseline_mae_pct: float
    difficulty: Difficulty
    context: int
    horizon: int
    base_epochs: int
    extended_epochs: int
    epochs: int
    rank: int
    alpha: int
    dropout: float
    loss: Loss
    learning_rate: float
    effective_batch: int
    patience: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingPlan:
        """The plan that `to_json` wrote; raises BadInput naming missing or surplus fields."""
        require_fields(cls, value, what="plan", remedy="train again")
        return cls(**{**value, "notes": tuple(value["notes"])})


def difficulty(mae_pct: float) -> Difficulty:
    """Difficulty of a stock: easy below 8 %, medium up to and with 15 %, hard above.

    mae_pct: error of naive persistence over 64 bars, in % of the mean close. Raises BadInput
    if it is not a finite number of at least 0.
    """
    if not (math.isfinite(mae_pct) and mae_pct >= 0):
        raise BadInput(f"the baseline error is {mae_pct} %: without it no difficulty is known")
    if mae_pct < EASY_BELOW_PCT:
        return "easy"
    return "medium" if mae_pct <= HARD_ABOVE_PCT else "hard"


def size_tier(n_bars: int) -> SizeTier:
    """The row of the size table for a history of `n_bars` bars up to its cut."""
    return next(tier for tier in SIZE_TIERS if n_bars < tier.below)


def prediction_length(n_bars: int, overrides: PlanOverrides | None = None) -> int:
    """The plan's horizon in bars: known from the size alone, before the difficulty is."""
    given = overrides.prediction_length if overrides else None
    return size_tier(n_bars).horizon if given is None else given


def plan(
    n_bars: int,
    baseline_mae_pct: float,
    family: str,
    model_limits: ModelLimits,
    overrides: PlanOverrides | None = None,
    *,
    epochs_scale: float = 1.0,
) -> TrainingPlan:
    """How to train one stock's adapter of one family.

    n_bars: bars up to the cut. baseline_mae_pct: naive error over 64 bars in %, computed on
    bars before the selection segment. model_limits: of the base; the context is capped so
    that context + horizon fits. overrides: the stock's own values. epochs_scale: factor on
    the tables' epochs (at least 1 remains); epochs given as an override are left alone.

    Raises BadInput for an unknown baseline, a scale that is not above 0, or a prediction
    length that leaves the model fewer than 128 bars of context.
    """
    if not (math.isfinite(epochs_scale) and epochs_scale > 0):
        raise BadInput(f"epochs scale is {epochs_scale}: give a number above 0")
    given = _given(overrides)
    level = difficulty(baseline_mae_pct)
    size, tier = size_tier(n_bars), DIFFICULTY_TIERS[level]
    extended = math.floor(size.base_epochs * EPOCH_EXTENSION)
    table: dict[str, Any] = {
        "epochs": extended + tier.epoch_bonus,
        "rank": tier.rank,
        "learning_rate": tier.learning_rate,
        "dropout": DROPOUT,
        "loss": tier.loss,
        "context_length": size.context,
        "prediction_length": size.horizon,
        "effective_batch": EFFECTIVE_BATCH,
    }
    notes = [f"{name} {table[name]} -> {value}: override" for name, value in given.items()]
    used = table | given
    if epochs_scale != 1.0 and "epochs" not in given:
        used["epochs"] = max(1, round(table["epochs"] * epochs_scale))
        notes.append(f"epochs {table['epochs']} -> {used['epochs']}: scaled by {epochs_scale:g}")
    horizon = used["prediction_length"]
    context, note = capped_context(used["context_length"], horizon, model_limits)
    return TrainingPlan(
        family=family,
        n_bars=n_bars,
        baseline_mae_pct=baseline_mae_pct,
        difficulty=level,
        context=context,
        horizon=horizon,
        base_epochs=size.base_epochs,
        extended_epochs=extended,
        epochs=used["epochs"],
        rank=used["rank"],
        alpha=ALPHA_PER_RANK * used["rank"],
        dropout=used["dropout"],
        loss=used["loss"],
        learning_rate=used["learning_rate"],
        effective_batch=used["effective_batch"],
        patience=PATIENCE,
        notes=(*notes, note) if note else tuple(notes),
    )


def _given(overrides: PlanOverrides | None) -> dict[str, Any]:
    """The overrides that were given, by field."""
    values = asdict(overrides) if overrides else {}
    return {name: value for name, value in values.items() if value is not None}


def _check_whole(name: str, value: int | None, least: int, most: int | None) -> None:
    if value is None:
        return
    if type(value) is not int or value < least or (most is not None and value > most):
        span = f"{least} or more" if most is None else f"{least} to {most}"
        raise BadInput(f"{name} is {value!r}: give a whole number, {span}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
