"""Who won, and whether that could be chance: Diebold-Mariano tests and the winner rule.

Tests run on the selection origins: 8 to 26 forecasts that share no target. The test segment
of one stock and month has one to three origins; no p-value exists there, so it may only veto.
Test origins of many stocks and months are another matter: `pooled_test`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.tsa.stattools import diebold_mariano_test

from retrain_assets.evaluation.comparison import NAIVE

Key = TypeVar("Key", bound=Hashable)

TIE = "tie"
ALPHA = 0.05
MIN_MONTHS = 6
"""Fewer months give no pooled p-value and no pooled interval."""

_CHOSEN_HERE = (".chosen", ".refined")
"""Variants whose settings were chosen on the selection origins of this very month."""
_NOT_JUDGED = (".last_month", ".incumbent")
"""Variants that cannot win: see `winner`."""


class LossTest(NamedTuple):
    """A Diebold-Mariano test. Negative statistic = the first forecast has the smaller loss."""

    statistic: float
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """Outcome of the winner rule.

    winner: a candidate's name, `naive` or `tie`.
    p_values: by candidate that is judged: p of "as good as naive" on the selection origins,
        Holm-adjusted over the candidates. Two-sided, but one-sided for a candidate whose
        settings were chosen on these origins (see `winner`).
    reason: why, in one sentence.
    """

    winner: str
    p_values: dict[str, float]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        return {"winner": self.winner, "p_values": self.p_values, "reason": self.reason}


def origin_losses(
    forecasts: pd.DataFrame,
    candidates: Sequence[str],
    *,
    segment: Literal["selection", "test"],
    scope: Literal["holdout", "plan"] = "holdout",
) -> pd.DataFrame:
    """Mean absolute error of each forecast in price units: rows origins, columns candidates.

    forecasts: table of `Comparison.forecasts`. Rows are indexed by (unique_id, cutoff).
    """
    chosen = (forecasts["segment"] == segment) & (forecasts["scope"] == scope)
    rows = forecasts[chosen]
    errors = rows[list(candidates)].sub(rows["y"], axis="index").abs()
    return errors.groupby([rows["unique_id"], rows["cutoff"]]).mean()


def diebold_mariano(first: NDArray[np.float64], second: NDArray[np.float64]) -> LossTest:
    """Test that two forecasters have equal expected loss, with Harvey's small-sample term.

    first, second: one loss per origin, shape (origin,), at least two. An observation is a
    whole forecast: origins lie one horizon apart, so neighbours share no target and their
    loss differences are serially uncorrelated under the null, as those of one-step forecasts
    are. Hence horizon 1 and no lags in the variance, which makes it the t test of the mean
    difference; statsmodels' default lags would reject a true null twice as often as stated
    with 8 to 26 origins.

    Losses that never differ give statistic 0 and p 1. Sources: Diebold and Mariano (1995),
    Harvey, Leybourne and Newbold (1997).
    """
    if np.array_equal(first, second):
        return LossTest(0.0, 1.0)
    result = diebold_mariano_test(
        np.zeros(len(first)),
        first,
        second,
        criterion=lambda actual, loss: loss,
        lags=0,
        harvey_adj=True,
        horizon=1,
    )
    return LossTest(float(result.statistic), float(result.pvalue))


def pooled_test(
    first: NDArray[np.float64], second: NDArray[np.float64], months: Sequence[str]
) -> LossTest | None:
    """`diebold_mariano` on means by month, for origins of many stocks and months.

    first, second: relative losses (each divided by the close of its origin), shape (origin,).
    months: of each origin. Stocks of one month rise and fall together, so a month is one
    observation however many stocks it has, and every month weighs the same. None with fewer
    than MIN_MONTHS months. The test origins of one month reach back about one month, so those
    of neighbours share a session or two at most.
    """
    if not len(first) == len(second) == len(months):
        raise ValueError(f"{len(first)} and {len(second)} losses in {len(months)} months")
    means = pd.DataFrame({"first": first, "second": second}).groupby(np.asarray(months)).mean()
    if len(means) < MIN_MONTHS:
        return None
    return diebold_mariano(means["first"].to_numpy(), means["second"].to_numpy())


def winner(
    forecasts: pd.DataFrame,
    candidates: Sequence[str],
    *,
    alpha: float = ALPHA,
    searched: Mapping[str, float] | None = None,
) -> Verdict:
    """Judge one stock's candidates against naive.

    A candidate qualifies when its loss is significantly below naive's on the selection
    origins (Holm-adjusted p < alpha) and its error on the holdout test origins is not above
    naive's. Of several that qualify the one with the smallest selection loss wins. Naive wins
    when every other candidate is significantly worse than it on the selection origins, and
    none better on the test. Anything else is a tie, which is the normal case.

    forecasts: `Comparison.forecasts` of one symbol; candidates: names to judge, naive among
    them. Diebold and Mariano's p assumes that nothing about a candidate was chosen on these
    origins, which is true of `<family>.zero_shot`, `<family>.adapter` and the baselines.

    searched: for each `<family>.chosen` and `<family>.refined` the p of "nothing that was
    tried is better than naive" over all that was tried on these origins (`choice.spa_p_value`
    with naive as the default); the best of many looks better than it is, and that p allows for
    it. It can only tell less error than naive. More error is told by Diebold and Mariano's,
    which the choice makes too large if anything. Raises ValueError where one is missing.

    `<family>.last_month` and `<family>.incumbent` are not judged and cannot win. Their settings
    were chosen, or their promotion decided, by the errors of earlier months, whose selection
    shares about seven eighths of its bars with this one. Those searches' losses on these very
    origins are not at hand, so nothing could allow for them, and a plain p would be too small.
    """
    if len(forecasts["unique_id"].unique()) != 1:
        raise ValueError("a verdict is about one symbol")
    rivals = [n for n in candidates if n != NAIVE and not n.endswith(_NOT_JUDGED)]
    names = [NAIVE, *rivals]
    selection = origin_losses(forecasts, names, segment="selection")
    test = origin_losses(forecasts, names, segment="test")
    p_values = against_naive(selection, searched)
    chosen, reason = _judge(selection.mean(), test.mean(), p_values, alpha)
    return Verdict(chosen, p_values, f"{reason} ({len(selection)} selection origins)")


def _judge(
    selection: pd.Series[float],
    test: pd.Series[float],
    p_values: dict[str, float],
    alpha: float,
) -> tuple[str, str]:
    """The rule of `winner` on mean losses by candidate: who wins, and why."""
    certain = [name for name, p in p_values.items() if p < alpha]
    better = [name for name in certain if selection[name] < selection[NAIVE]]
    worse = [name for name in certain if selection[name] > selection[NAIVE]]
    qualified = [name for name in better if test[name] <= test[NAIVE]]
    if qualified:
        best = min(qualified, key=lambda name: float(selection[name]))
        return best, f"it errs less than naive, p = {p_values[best]:.2g}, and not more on the test"
    if better:
        return TIE, f"{', '.join(better)}: less error than naive, but not on the test"
    if worse and len(worse) == len(p_values) and test.min() == test[NAIVE]:
        return NAIVE, "all others err more, on the test as well"
    if worse:
        return TIE, f"{', '.join(worse)}: more error than naive; nothing has less"
    return TIE, "no difference from naive is significant"


def against_naive(
    losses: pd.DataFrame, searched: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Holm-adjusted p of each candidate against naive, by name.

    losses: one row per origin, one column per candidate, naive among them. searched: as in
    `winner`, whose remarks on candidates that were chosen on these origins hold here.
    """
    known = searched or {}
    base = losses[NAIVE]
    raw: dict[str, float] = {}
    for name in losses.columns.drop(NAIVE):
        if name.endswith(_CHOSEN_HERE) and name not in known:
            raise ValueError(f"{name} was chosen on these origins: its p over all tried is needed")
        if name in known and losses[name].mean() <= base.mean():
            raw[name] = known[name]
        else:
            raw[name] = diebold_mariano(losses[name].to_numpy(), base.to_numpy()).p_value
    return holm(raw)


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """The p-values adjusted for their number, so that the smallest may be looked at (Holm, 1979).

    The chance of one or more false rejections at a level is then at most that level, whatever
    depends on what: stocks that move together may be adjusted over.
    """
    # By hand, because statsmodels' multipletests collects garbage in every call: .2 s each.
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
