"""Is a regression real: candidate and rivals on more forecasts than the test's three.

The window is the end of the month's bars, as far as no choice was made there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooling import MIN_ORIGINS, loss_p_value
from retrain_assets.training.splits import Split

CANDIDATE = "candidate"


def confirmation_origins(split: Split, sessions: int) -> list[int]:
    """Origins of the H-session forecasts that cover the last `sessions` bars, ascending.

    Raises BadInput for a window that holds no forecast, and for one that would reach into the
    selection, where the candidate's settings were chosen: it would be judged on its choice.
    """
    days, test = split.holdout_days, split.test
    if sessions < days or sessions > test.bars:
        raise BadInput(
            f"holdout_days is {sessions}: give {days} to {test.bars}, one forecast at least and no "
            "session on which settings were chosen"
        )
    count = sessions // days
    first = test.stop - count * days - 1
    return list(range(first, test.stop - 1, days))


def against(losses: Mapping[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Each candidate against its family's rivals and naive: change in % and one-sided p.

    A row has family, against, change_pct (above 0: the candidate errs more), origins and p_value
    of "the candidate errs no more", null with fewer than eight forecasts.
    """
    rows = []
    for name, own in losses.items():
        family, _, variant = name.partition(".")
        if variant != CANDIDATE:
            continue
        rivals = [n for n in losses if n == NAIVE or (n.startswith(f"{family}.") and n != name)]
        for rival in rivals:
            other = losses[rival]
            enough = len(own) >= MIN_ORIGINS
            rows.append(
                {
                    "family": family,
                    "against": rival.removeprefix(f"{family}."),
                    "change_pct": 100 * float(own.sum() / other.sum() - 1) if other.any() else None,
                    "origins": len(own),
                    "p_value": loss_p_value(own, other, alternative="greater") if enough else None,
                }
            )
    return rows


def confirmed_in_words(found: Mapping[str, Any]) -> list[str]:
    """A longer look as lines of text: each candidate's error, and how it compares.

    found: as the asset `confirmation` keeps it, with `tests` of `against`.
    """
    count = len(found["origins"])
    lines = [
        f"{found['symbol']}, last {found['holdout_days']} sessions in {count} forecasts of "
        f"{found['horizon']}:"
    ]
    for family in dict.fromkeys(row["family"] for row in found["tests"]):
        rivals = [_in_words(row) for row in found["tests"] if row["family"] == family]
        own = found["mae_pct"][f"{family}.{CANDIDATE}"]
        lines.append(f"  {family} candidate errs {own:.2f} %: {', '.join(rivals)}")
    return lines


def _in_words(row: Mapping[str, Any]) -> str:
    change, p_value = row["change_pct"], row["p_value"]
    if change is None:
        return f"{row['against']} not at all"
    p = "" if p_value is None else f" (p {p_value:.2g})"
    return f"{change:+z.1f} % against {row['against']}{p}"
