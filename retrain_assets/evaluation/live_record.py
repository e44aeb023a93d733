"""How what was in production did on a month it had never seen, and whether it has drifted.

The version that stood at the end of month M-1 forecasts the sessions of month M, H at a time, each
forecast from the last close before it; naive forecasts the same. Nothing is chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooling import skill

DRIFT_LEVEL = 0.05
MIN_LIVE_ORIGINS = 3
"""Fewer forecasts say nothing about drift."""


@dataclass(frozen=True)
class Drift:
    """Whether a version errs more against naive than it did where it was selected.

    drifted: significantly so. p_value: one-sided, None where there is too little to tell.
    reason: in one sentence.
    """

    drifted: bool
    p_value: float | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {"drifted": self.drifted, "p_value": self.p_value, "reason": self.reason}


def live_origins(sessions: pd.DatetimeIndex, previous_cut: pd.Timestamp, days: int) -> list[int]:
    """Positions of the last bar before each forecast of a month: from the cut before it, every H.

    sessions: of all bars up to the month's cut. days: H. Forecasts that would reach past the last
    bar are left out, so a month of 22 sessions has three of seven.
    """
    first = int(sessions.searchsorted(previous_cut, side="right")) - 1
    return list(range(first, len(sessions) - days, days)) if first >= 0 else []


def live_entry(losses: Mapping[str, NDArray[np.float64]], column: str) -> dict[str, Any]:
    """Error and skill over naive of one version in the month, from relative losses by origin."""
    own, naive = losses[column], losses[NAIVE]
    return {
        "mae_pct": 100 * float(own.mean()),
        "naive_mae_pct": 100 * float(naive.mean()),
        "skill": skill(own, naive),
        "losses": own.tolist(),
        "naive_losses": naive.tolist(),
    }


def drift(
    live: Sequence[Mapping[str, Any]],
    selected: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> Drift:
    """Compare a version's live record with the score it was selected by.

    live: its entries of all months in production, each with `losses` and `naive_losses`.
    selected: its relative losses and naive's on the selection origins, (origin,) each; None if
    they are not known, as of naive itself.

    What is compared is the loss's excess over naive's, origin by origin, with Welch's one-sided
    test, since a stormy month makes every forecast err more. The selection score is flattered by
    the choice, so a drift that is found may be that flattery: either way the version does not do
    what it was promoted for.
    """
    from statsmodels.stats.weightstats import ttest_ind

    if selected is None:
        return Drift(False, None, "nothing was selected")
    own = np.concatenate([entry["losses"] for entry in live]) if live else np.array([])
    if len(own) < MIN_LIVE_ORIGINS:
        return Drift(False, None, f"{len(own)} live forecasts are too few to tell")
    naive = np.concatenate([entry["naive_losses"] for entry in live])
    now, then = own - naive, selected[0] - selected[1]
    if np.ptp(now) == 0 or not naive.any() or not selected[1].any():
        return Drift(False, None, "its errors do not differ from naive's in a way that can be told")
    _, p_value, _ = ttest_ind(now, then, alternative="larger", usevar="unequal")
    scale = 100 / naive.mean()
    words = (
        f"against naive {-scale * now.mean():+.1f} % on {len(now)} live forecasts, "
        f"{-100 * then.mean() / selected[1].mean():+.1f} % where it was selected, p = {p_value:.2g}"
    )
    return Drift(bool(p_value < DRIFT_LEVEL), float(p_value), words)
