"""Who won, and whether that could be chance: Diebold-Mariano tests and the winner rule.

Tests run on the selection origins: 8 to 26 forecasts that share no target. The test segment
of one stock and month has one to three origins; no p-value exists there, so it may only veto.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests
from statsmodels.tsa.stattools import diebold_mariano_test

from retrain_assets.evaluation.comparison import NAIVE

TIE = "tie"
ALPHA = 0.05


class LossTest(NamedTuple):
    """A Diebold-Mariano test. Negative statistic = the first forecast has the smaller loss."""

    statistic: float
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """Outcome of the winner rule.

    winner: a candidate's name, `naive` or `tie`.
    p_values: by candidate other than naive: two-sided p of "as good as naive" on the
        selection origins, Holm-adjusted over the candidates.
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


def winner(forecasts: pd.DataFrame, candidates: Sequence[str], *, alpha: float = ALPHA) -> Verdict:
    """Judge one stock's candidates against naive.

    A candidate qualifies when its loss is significantly below naive's on the selection
    origins (Holm-adjusted p < alpha) and its error on the holdout test origins is not above
    naive's. Of several that qualify the one with the smallest selection loss wins. Naive wins
    when every other candidate is significantly worse than it on the selection origins, and
    none better on the test. Anything else is a tie, which is the normal case.

    forecasts: `Comparison.forecasts` of one symbol; candidates: names to judge, naive among
    them. The p-values assume that nothing about a candidate was chosen on these origins.
    """
    if len(forecasts["unique_id"].unique()) != 1:
        raise ValueError("a verdict is about one symbol")
    names = [NAIVE, *(name for name in candidates if name != NAIVE)]
    selection = origin_losses(forecasts, names, segment="selection")
    test = origin_losses(forecasts, names, segment="test")
    p_values = against_naive(selection)
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


def against_naive(losses: pd.DataFrame) -> dict[str, float]:
    """Holm-adjusted two-sided p of each candidate against naive, by name.

    losses: one row per origin, one column per candidate, naive among them.
    """
    base = losses[NAIVE].to_numpy()
    rivals = [name for name in losses.columns if name != NAIVE]
    if not rivals:
        return {}
    raw = [diebold_mariano(losses[name].to_numpy(), base).p_value for name in rivals]
    adjusted = multipletests(raw, method="holm")[1]
    return {name: float(p) for name, p in zip(rivals, adjusted, strict=True)}
