"""Whether a candidate takes the place of what is there, decided by one rule on evidence.

The same rule serves the champion of a family, where the incumbent is that family's champion and
first the base as published, and the pointer to what is in production, where it is whatever the
pointer names and first naive. Nothing here forecasts, and nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.choice import sign_p_value, spa_p_value
from retrain_assets.evaluation.pooling import loss_p_value, skill
from retrain_assets.files import require_fields

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Rules:
    """What it takes to be promoted.

    yearly_error: chance that a year of decisions promotes anything although nothing is better.
    looks: how often a year a stock is decided on. decisions: how many of them share a look: a
        family's champion is replaced, and production is pointed to it.
    veto_level: a one-sided p below it, of "no more error on the test", forbids a promotion.
    min_origins: fewer selection origins decide nothing. With 8 a lead can at best have a p of
        1 / 256, so that with the usual level 9 are the fewest that ever promote.
    repetitions: random samples of each of the two tests.
    smallest_gain: share of the incumbent's selection loss that a change has to be worth.
    """

    yearly_error: float = 0.05
    looks: int = 12
    decisions: int = 2
    veto_level: float = 0.05
    min_origins: int = 8
    repetitions: int = 4999
    smallest_gain: float = 0.0

    def __post_init__(self) -> None:
        """Raises BadInput naming a field that is out of range."""
        for name in ("yearly_error", "veto_level"):
            if not 0 < getattr(self, name) < 0.5:
                raise BadInput(f"{name} is {getattr(self, name)}: give a number between 0 and 0.5")
        for name, least in (("looks", 1), ("decisions", 1), ("min_origins", 3)):
            if not getattr(self, name) >= least:
                raise BadInput(f"{name} is {getattr(self, name)}: give at least {least}")
        if not 0 <= self.smallest_gain < 1:
            raise BadInput(f"smallest_gain is {self.smallest_gain}: give a share, such as 0.02")
        if not 1 / (self.repetitions + 1) <= self.level:
            raise BadInput(
                f"repetitions is {self.repetitions}: give at least {int(1 / self.level)}, or no p "
                f"can fall to the level of one decision, {self.level:.2g}"
            )

    @property
    def level(self) -> float:
        """Level of one decision: its share of the year's error.

        Selection windows of neighbouring months share 23 of 26 origins, so a year's tests depend
        on each other in a way that nobody knows. A share for each (Bonferroni) holds whatever
        the dependence. Boundaries for accumulating data do not fit: this window moves on.
        """
        return self.yearly_error / (self.looks * self.decisions)

    def to_json(self) -> dict[str, Any]:
        """The rules as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What a decision is based on: losses of candidate and incumbent on the same origins.

    candidate_id, incumbent_id: of the versions. candidate, incumbent: losses on the selection
    origins, (origin,). tried: losses there of all settings of all searches that the candidate
    was chosen from, (origin, setting), NaN where a race had dropped one; with or without the
    candidate's own. test_candidate, test_incumbent: losses on the test origins of all months up
    to this one, of each month's candidate and incumbent, (test origin,).

    All losses are relative: mean absolute error of one forecast / close at its origin.
    """

    candidate_id: str
    incumbent_id: str
    candidate: NDArray[np.float64]
    incumbent: NDArray[np.float64]
    tried: NDArray[np.float64]
    test_candidate: NDArray[np.float64]
    test_incumbent: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Raises BadInput naming a field whose shape or values cannot be losses."""
        pairs = (("candidate", "incumbent"), ("test_candidate", "test_incumbent"))
        for first, second in pairs:
            shapes = getattr(self, first).shape, getattr(self, second).shape
            if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
                raise BadInput(f"{first} and {second} have shapes {shapes}: give a loss an origin")
        if self.tried.ndim != 2 or len(self.tried) != len(self.candidate):
            raise BadInput(
                f"tried has the shape {self.tried.shape}: give {len(self.candidate)} rows, one a "
                "selection origin, and a column a setting"
            )
        for name in (*pairs[0], *pairs[1], "tried"):
            values = getattr(self, name)
            known = values[~np.isnan(values)] if name == "tried" else values
            if not (np.isfinite(known) & (known >= 0)).all():
                raise BadInput(f"{name} holds a loss that is negative or not finite: compare again")

    def distinct(self) -> NDArray[np.float64]:
        """Losses of all distinct settings, (origin, setting); the candidate's are the first."""
        # The candidate may come from another table than its search, rounded otherwise.
        own = np.isclose(self.tried, self.candidate[:, None], rtol=1e-9, atol=0).all(axis=0)
        columns = [self.candidate, *self.tried[:, ~own].T]
        return np.column_stack(list({column.tobytes(): column for column in columns}.values()))


@dataclass(frozen=True)
class Decision:
    """The answer.

    reason: one sentence. candidate, incumbent: ids. rules: as JSON. numbers: `level` and the p
    that have to be no larger, `sign_p` and `spa_p`; `veto_p`; `selection_gain_pct` and
    `test_gain_pct`, by how many % the candidate errs less; how many `origins`, `test_origins`
    and distinct settings `tried`. None where something is not defined, or was not asked for
    since the answer was known.
    """

    promote: bool
    reason: str
    candidate: str
    incumbent: str
    numbers: Numbers
    rules: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Decision:
        """The decision that `to_json` wrote; raises BadInput naming missing or unknown fields."""
        again = "materialize the month's champion again"
        require_fields(cls, value, what="decision", remedy=again)
        return cls(**value)


def decide(evidence: Evidence, rules: Rules, *, seed: int = 0) -> Decision:
    """Promote the candidate only on evidence; without it everything stays as it is.

    Promoted is a candidate that (a) errs less than the incumbent on the selection origins, by
    more than luck in the eyes of two tests at `rules.level`, and (b) errs not significantly more
    on the test origins of all months up to this one. The tests of (a) are `sign_p_value`, about
    the candidate itself, and Hansen's `spa_p_value`, about the best of all; both count everything
    that was tried. That of (b) is Diebold and Mariano's. With fewer than two test origins it has
    no p: nothing speaks against the candidate yet, and (a), which needs no test origin, decides.

    seed: of the tests' random samples. Same evidence, rules and seed give the same decision.

    What was measured, on simulated years of monthly decisions (400 without skill, 100 where all
    settings err 10 % less; 26 selection origins of which 3 are new each month, heavy-tailed losses,
    a month's skill with a standard error of 2 points; months alike, half alike or not at all; the
    cheapest setting that ties chosen, or the best), as the range over those ways, in % of years:

        settings tried     1          6          48         192        192 and 6
        promoted, no skill 0 to 1.5   0 to 1.0   0 to .8    0 to .5    0 to .5
        promoted, 10 %     100        100        100        97 to 100  97 to 100

    A gain of 5 % was promoted in 65 to 77 % of years, one of 3 % in 13 to 25 %; 10 % of one
    setting alone of 192 in 90 to 99 %. Hansen's test alone, at the year's error over 12, promoted
    in up to 10 % of years without skill; a t test times the settings tried missed up to 12 % of
    gains of 10 %. Where a candidate mostly gains a little and rarely loses much (skewness -1.5),
    2 to 10 % of years without skill promoted: 26 origins cannot show what is rare.
    """
    losses = evidence.distinct()
    numbers = _measures(evidence, rules, losses)
    reason = _refusal(evidence, rules, numbers)
    if reason is None:
        numbers |= _tests(evidence, rules, losses, seed)
        reason = _objection(rules, numbers)
    return Decision(
        promote=reason is None,
        reason=reason or _praise(numbers),
        candidate=evidence.candidate_id,
        incumbent=evidence.incumbent_id,
        numbers=numbers,
        rules=rules.to_json(),
    )


def _measures(evidence: Evidence, rules: Rules, losses: NDArray[np.float64]) -> Numbers:
    """What is known without a test. losses: as of `Evidence.distinct`."""
    return {
        "origins": len(evidence.candidate),
        "test_origins": len(evidence.test_candidate),
        "tried": losses.shape[1],
        "selection_gain_pct": _gain_pct(evidence.candidate, evidence.incumbent),
        "test_gain_pct": _gain_pct(evidence.test_candidate, evidence.test_incumbent),
        "level": rules.level,
        "sign_p": None,
        "spa_p": None,
        "veto_p": None,
    }


def _refusal(evidence: Evidence, rules: Rules, numbers: Numbers) -> str | None:
    """Why there is nothing to test, if so."""
    origins, gain = len(evidence.candidate), numbers["selection_gain_pct"]
    if evidence.candidate_id == evidence.incumbent_id:
        return "it is in production already"
    if origins < rules.min_origins:
        return f"{origins} selection origins decide nothing, {rules.min_origins} are needed"
    if gain is None or gain <= 0:
        return _lead(numbers)
    if gain < 100 * rules.smallest_gain:
        return f"{_lead(numbers)}, and {100 * rules.smallest_gain:.3g} % is the least that counts"
    return None


def _tests(
    evidence: Evidence, rules: Rules, losses: NDArray[np.float64], seed: int
) -> dict[str, float | None]:
    """p of each test, the cheapest first; what follows one that is not passed is not asked.

    Hansen's takes half a second with hundreds of settings, the changes of sign milliseconds.
    """
    incumbent, repetitions = evidence.incumbent, rules.repetitions
    sign_p = sign_p_value(losses, incumbent, repetitions=repetitions, seed=seed)
    if sign_p > rules.level:
        return {"sign_p": sign_p}
    spa_p = spa_p_value(losses, incumbent, repetitions=repetitions, seed=seed)
    if spa_p > rules.level:
        return {"sign_p": sign_p, "spa_p": spa_p}
    veto_p = loss_p_value(evidence.test_candidate, evidence.test_incumbent, alternative="greater")
    return {"sign_p": sign_p, "spa_p": spa_p, "veto_p": veto_p}


def _objection(rules: Rules, numbers: Numbers) -> str | None:
    """What the tests have against a promotion, if anything."""
    for name, test in (("sign_p", "random signs"), ("spa_p", "Hansen's test")):
        p = numbers[name]
        if p is not None and p > rules.level:
            return (
                f"{_lead(numbers)}, which may be luck: {test} over {numbers['tried']} settings "
                f"tried give p {p:.2g}, {rules.level:.2g} is needed"
            )
    veto_p = numbers["veto_p"]
    if veto_p is not None and veto_p < rules.veto_level:
        return f"{_lead(numbers)}, but {_on_test(numbers)}, p {veto_p:.2g}"
    return None


def _praise(numbers: Numbers) -> str:
    p = max(numbers["sign_p"] or 0.0, numbers["spa_p"] or 0.0)
    lead = f"{_lead(numbers)}, p {p:.2g} over {numbers['tried']} settings tried"
    return f"{lead}, and {_on_test(numbers)}" if numbers["test_origins"] else lead


def _gain_pct(losses: NDArray[np.float64], incumbent: NDArray[np.float64]) -> float | None:
    """By how many % the losses are less than the incumbent's; None if that one never errs."""
    gain = skill(losses, incumbent)
    return None if gain is None else 100 * gain


def _lead(numbers: Numbers) -> str:
    gain, origins = numbers["selection_gain_pct"], numbers["origins"]
    return f"it errs {_in_words(gain)} on {origins} selection origins"


def _on_test(numbers: Numbers) -> str:
    return f"{_in_words(numbers['test_gain_pct'])} on {numbers['test_origins']} test origins"


def _in_words(gain: float | None) -> str:
    if not gain:
        return "no less"
    return f"{abs(gain):.3g} % {'less' if gain > 0 else 'more'}"
