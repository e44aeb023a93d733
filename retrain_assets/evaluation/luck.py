"""Whether the lead of one setting among many could be luck: a test that is exact with few origins.

Beside Hansen's test (`choice.spa_p_value`), which asks whether any setting leads and is liberal
with few origins, this one asks about one setting, and counts the others it was chosen from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sign_p_value(
    losses: NDArray[np.float64], incumbent: NDArray[np.float64], *, repetitions: int, seed: int
) -> float:
    """p of "this setting leads by luck", for the first of many settings that were tried.

    losses: (origin, setting), the setting in question first; NaN counts as no lead. incumbent:
    (origin,). Were two forecasters equally good, each lead of one over the other might as well
    have been its lag. So the leads of all settings change sign together, origin by origin at
    random, and p is the share of samples in which any setting's t statistic is as large as the
    one in question (Fisher's randomisation test; its maximum over settings as in Westfall and
    Young, Resampling-Based Multiple Testing, 1993). All 2^n changes are made if they are no more
    than `repetitions`; otherwise the observed sample counts as one of them.

    Exact with any number of origins and settings, for leads with any tails and any dependence
    between settings, as long as their distribution is symmetric where nobody is better.
    """
    lead = np.nan_to_num(incumbent[:, None] - losses, nan=0.0)
    # Sums of squares keep still when signs change, so t rises with the sum over their root.
    size = np.sqrt((lead**2).sum(axis=0))
    unit = np.divide(lead, size, out=np.zeros_like(lead), where=size > 0)
    # Unlike a product of matrices this is the same to the bit on any number of threads.
    sums = np.einsum("os,oc->sc", unit, _sign_changes(len(lead), repetitions, seed))
    return float(np.mean(sums.max(axis=0) >= unit[:, 0].sum() - 1e-9))


def _sign_changes(n: int, repetitions: int, seed: int) -> NDArray[np.float64]:
    """1 and -1, (origin, change): all changes there are if they are few; the first changes none."""
    if 2**n <= repetitions:
        changed = np.arange(2**n) >> np.arange(n)[:, None] & 1
    else:
        changed = np.random.default_rng(seed).integers(0, 2, (n, repetitions + 1))
        changed[:, 0] = 0
    return np.where(changed == 1, -1.0, 1.0)
