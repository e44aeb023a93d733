"""Which setting to take from a table of losses, and whether a lead could be luck.

All are pure functions of losses by origin and setting; nothing here forecasts. Of the two tests of
luck, Hansen's (`spa_p_value`) asks whether any setting leads, and is liberal with few origins; that
of random signs (`sign_p_value`) asks about one setting, counts the others it was chosen from, and
is exact with few origins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arch.bootstrap import SPA
from numpy.typing import NDArray
from statsmodels.stats.weightstats import DescrStatsW

from retrain_assets.training.losses import NEGLIGIBLE

TIE_LEVEL = 0.05
"""A setting ties with the best unless a two-sided paired test tells them apart at this level."""
SPA_REPETITIONS = 1000


@dataclass(frozen=True)
class Choice:
    """The chosen setting and what led to it; arrays have shape (setting,).

    chosen, best: positions; the best has the lowest mean loss, the chosen ties with it.
    p_values: two-sided paired p of each setting against the best, 1 for the best itself.
    standard_errors: of the paired mean difference from the best, in units of the loss.
    tied: settings that the test does not tell from the best, or that err less than NEGLIGIBLE
        more than it.

    A setting that was not seen on all origins has NaN and is not tied.
    """

    chosen: int
    best: int
    p_values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    tied: NDArray[np.bool_]


def choose(
    losses: NDArray[np.float64], costs: NDArray[np.int64], departures: NDArray[np.int64]
) -> Choice:
    """The cheapest setting that ties with the best; of equally cheap ones that nearest the default.

    losses: (origin, setting), NaN where a setting was not measured; only settings measured on
    all origins are eligible. costs: (setting,). departures: in how many fields a setting differs
    from the default, (setting,). Among those that tie with the lowest mean loss the smallest cost
    wins, then the fewest departures, then the lowest loss, then the place in the table.

    A tie is not a proof of equality: with few origins, settings that differ will tie too. The
    choice is among the settings tried. Whether it is better than the default is for the test
    window and `spa_p_value` to say.
    """
    complete = ~np.isnan(losses).any(axis=0)
    if not complete.any():
        raise ValueError("no setting was measured on all origins")
    means = np.where(complete, losses.mean(axis=0), np.inf)
    best = int(np.argmin(means))
    p_values, errors = paired_test(losses, losses[:, best])
    alike = (p_values >= TIE_LEVEL) | (means <= means[best] * (1 + NEGLIGIBLE))
    tied = complete & alike
    chosen = min(np.flatnonzero(tied), key=lambda i: (costs[i], departures[i], means[i], i))
    return Choice(int(chosen), best, p_values, errors, tied)


def paired_test(
    losses: NDArray[np.float64], reference: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two-sided p of each column's mean difference from `reference`, and its standard error.

    losses: (origin, setting). reference: (origin,). The same test as
    `significance.diebold_mariano`, of all columns at once: for forecasts that share no target
    that one is the t test of the paired differences. Losses that never differ have p 1;
    columns with NaN have NaN.
    """
    difference = losses - reference[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        described = DescrStatsW(difference)
        _, p_values, _ = described.ttest_mean(0.0)
        errors = described.std_mean
    same = (difference == 0).all(axis=0)
    return np.where(same, 1.0, p_values), np.asarray(errors)


def spa_p_value(
    losses: NDArray[np.float64],
    default: NDArray[np.float64],
    *,
    seed: int,
    repetitions: int = SPA_REPETITIONS,
) -> float:
    """p of "no setting has a lower expected loss than the default", however many were tried.

    losses: (origin, setting) of the distinct settings. default: (origin,), the benchmark.
    Hansen's test of superior predictive ability (Journal of Business & Economic Statistics,
    2005), studentised, with his consistent recentering and seeded bootstrap samples.
    repetitions: how many samples; the smallest p there can be is 1 / (repetitions + 1).
    One-sided: only settings better than the default make it small. Blocks have length 1, an
    independent bootstrap of the origins, because selection origins share no target (see
    `significance.diebold_mariano`). The observed sample counts as one more, so p is never 0.
    With so few origins the test is liberal: where nothing was better, p was below .05 in 7 to 13 %
    of simulated tables of 192 settings on 26 origins, and in a quarter of those on 8.

    Where a setting was dropped by a race (NaN), it counts as equal to the default. It keeps
    its place among the settings tried, and its lead or lag on the origins it did see is
    diluted. With no setting that ever differs from the default, p is 1.
    """
    lead = np.nan_to_num(default[:, None] - losses, nan=0.0)
    lead = lead[:, (lead != 0).any(axis=0)]
    if lead.shape[1] == 0:
        return 1.0
    # arch uses variances for the recentering alone, so the studentising is done here: Hansen's
    # divisor is one number a setting, the same in every bootstrap sample.
    spread = np.maximum(lead.std(axis=0), np.finfo(np.float64).eps * np.abs(default).max())
    test = SPA(np.zeros(len(lead)), -lead / spread, block_size=1, reps=repetitions, seed=seed)
    test.compute()
    exceeding = round(test.pvalues["consistent"] * repetitions)
    return float((exceeding + 1) / (repetitions + 1))


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
