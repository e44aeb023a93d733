"""What to try next on a stock that stays behind: the retraining guide's remedies, one at a time.

The guide edits constants in a script ("TSLA needs even more training"). Here its remedies are the
rungs of a ladder: each changes one field of the month's plan and is compared with that plan, not
with the rung before. What comes next, and when to give up, are pure functions of the plan and of
what was tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from retrain_assets.errors import BadInput
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets.training.policy import ALPHA_PER_RANK, Loss, PlanOverrides, TrainingPlan

POLICY = "policy"
"""Name of the result a ladder begins with: that of the month's own plan."""
MOST_RANK = 32
"""The guide's bound; the policy itself goes to 16."""
MOST_EPOCHS = 1000
"""What `PlanOverrides` allows."""
RATE_FACTOR = 0.5
"""The guide's own step for TSLA, 1e-4 to 5e-5."""
DROPOUT_ADDED = 0.1
MOST_DROPOUT = 0.5
PATIENCE = 2
"""Rungs in a row without a gain after which the ladder is over."""


@dataclass(frozen=True)
class Rung:
    """One remedy: a name that is safe in paths, what it sets, and why it may help."""

    name: str
    overrides: PlanOverrides
    reason: str


@dataclass(frozen=True)
class RungResult:
    """What one rung gave.

    name: of the rung, or `policy` for the month's own plan. selection_loss: mean error on the
    selection origins, of the settings chosen there, in price units; None where the rung could
    not be trained, which counts as a try without gain. Raises BadInput for a loss that is not
    a finite number of at least 0.
    """

    name: str
    selection_loss: float | None

    def __post_init__(self) -> None:
        loss = self.selection_loss
        if loss is not None and not (math.isfinite(loss) and loss >= 0):
            raise BadInput(f"the selection loss of {self.name} is {loss}: give 0 or more, or null")

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RungResult:
        """The result that `to_json` wrote; raises BadInput naming missing or unknown fields."""
        if set(value) != {"name", "selection_loss"}:
            raise BadInput(
                f"a rung's result has the fields {sorted(value)}, not name and selection_loss: "
                "refine the stock again"
            )
        return cls(value["name"], value["selection_loss"])


def ladder(plan: TrainingPlan) -> tuple[Rung, ...]:
    """Everything that can be tried on a stock, in the order in which to try it.

    plan: of the month, the stock's own overrides in it. The rungs are the guide's: the two other
    losses; half the learning rate; the rank doubled up to 32, twice if there is room; more
    dropout; twice the epochs. What is at its bound already has no rung.

    Cheap ones come first, and neighbours differ in kind, because two in a row without gain end
    the ladder: another loss (the guide's first remedy) and a lower rate (for training that only
    leads away from the base) cost no more than the plan did, a higher rank hardly more. The
    second loss and the second rank come after one of each kind. Twice the epochs cost up to
    twice the time, and little is left to learn where patience ended the training: they are last.
    """
    losses, ranks = _losses(plan), _ranks(plan)
    return (
        *losses[:1],
        _rate(plan),
        *ranks[:1],
        *_dropout(plan),
        *losses[1:],
        *ranks[1:],
        *_epochs(plan),
    )


def next_rung(plan: TrainingPlan, done: Sequence[RungResult]) -> Rung | None:
    """The first rung not tried yet; None when the ladder is over (see `stopped`)."""
    if stopped(plan, done) is not None:
        return None
    tried = {result.name for result in done}
    return next(rung for rung in ladder(plan) if rung.name not in tried)


def stopped(plan: TrainingPlan, done: Sequence[RungResult]) -> str | None:
    """Why no rung should be tried any more; None as long as one should.

    done: results in the order they came, the first that of the month's own plan (`policy`).
    The ladder is over when every rung was tried, or when the last two lowered the best selection
    loss by no more than `losses.NEGLIGIBLE` of it. Each further rung is one more try on the same
    few origins: the best of many looks better there than it is, and where two different remedies
    change nothing, the plan is not what holds the stock back.

    Raises BadInput if `done` does not begin with `policy`, names a rung twice, or names one that
    is not of this plan's ladder.
    """
    rungs = ladder(plan)
    _check(rungs, done)
    if len(done) > len(rungs):
        return f"all {len(rungs)} rungs were tried"
    idle = _without_gain(done)
    if len(idle) < PATIENCE:
        return None
    return f"{' and '.join(idle)}, one after the other, did not lower the best selection loss"


def on_rung(plan: TrainingPlan, rung: Rung) -> TrainingPlan:
    """The month's plan with what the rung sets, alpha following the rank; the notes tell it.

    Lengths belong to the split, which every rung shares with the plan: no rung sets them.
    """
    values = _given(rung)
    notes = [f"{n} {getattr(plan, n)} -> {value}: rung {rung.name}" for n, value in values.items()]
    if rung.overrides.rank is not None:
        values["alpha"] = ALPHA_PER_RANK * rung.overrides.rank
    return replace(plan, **values, notes=(*plan.notes, *notes))


def merged(own: PlanOverrides, rung: Rung) -> PlanOverrides:
    """A stock's own overrides with a rung's on top: what the rung sets wins, the rest stays."""
    return replace(own, **_given(rung))


def _given(rung: Rung) -> dict[str, Any]:
    return {name: v for name, v in asdict(rung.overrides).items() if v is not None}


def _losses(plan: TrainingPlan) -> list[Rung]:
    others: list[Loss] = [loss for loss in get_args(Loss) if loss != plan.loss]
    return [
        Rung(
            f"loss_{loss}",
            PlanOverrides(loss=loss),
            f"loss {plan.loss} -> {loss}: what counts as an error may not suit the stock",
        )
        for loss in others
    ]


def _rate(plan: TrainingPlan) -> Rung:
    rate = plan.learning_rate * RATE_FACTOR
    return Rung(
        "half_rate",
        PlanOverrides(learning_rate=rate),
        f"learning rate {plan.learning_rate:g} -> {rate:g}: training may leave the base too fast",
    )


def _ranks(plan: TrainingPlan) -> list[Rung]:
    rungs, rank = [], plan.rank
    while rank < MOST_RANK:
        rank = min(2 * rank, MOST_RANK)
        reason = (
            f"rank {plan.rank} -> {rank}, alpha {plan.alpha} -> {ALPHA_PER_RANK * rank}: "
            "the adapter may have too little room"
        )
        rungs.append(Rung(f"rank_{rank}", PlanOverrides(rank=rank), reason))
    return rungs


def _dropout(plan: TrainingPlan) -> list[Rung]:
    # Rounded, so that 0.05 becomes 0.15 and not the sum of two binary fractions.
    raised = round(plan.dropout + DROPOUT_ADDED, 6)
    if raised > MOST_DROPOUT:
        return []
    reason = f"dropout {plan.dropout:g} -> {raised:g}: the adapter may learn the bars by heart"
    return [Rung("more_dropout", PlanOverrides(dropout=raised), reason)]


def _epochs(plan: TrainingPlan) -> list[Rung]:
    epochs = min(2 * plan.epochs, MOST_EPOCHS)
    if epochs <= plan.epochs:
        return []
    reason = f"epochs {plan.epochs} -> {epochs}: training may have ended too soon"
    return [Rung("more_epochs", PlanOverrides(epochs=epochs), reason)]


def _check(rungs: Sequence[Rung], done: Sequence[RungResult]) -> None:
    names = [result.name for result in done]
    if names[:1] != [POLICY]:
        raise BadInput(f"a ladder begins with the result of {POLICY!r}, not with {names[:1]}")
    known = {POLICY, *(rung.name for rung in rungs)}
    for name in names:
        if name not in known or names.count(name) > 1:
            raise BadInput(
                f"rung {name!r} is not of this plan or was tried twice: the plan has "
                f"{', '.join(rung.name for rung in rungs)}; refine the stock from the start"
            )


def _without_gain(done: Sequence[RungResult]) -> list[str]:
    """The last rungs in a row that did not lower the best loss by more than a trifle."""
    losses = [math.inf if r.selection_loss is None else r.selection_loss for r in done]
    best, idle = losses[0], list[str]()
    for result, loss in zip(done[1:], losses[1:], strict=True):
        idle = [] if loss < best * (1 - NEGLIGIBLE) else [*idle, result.name]
        best = min(best, loss)
    return idle
