"""A race among settings: origins come in rounds, and groups that cannot win any more leave.

The race knows no model. It asks for the losses of the settings still in it on the next few
origins, and after each round drops every group that the test in `beaten` holds for lost.
Settings of one group are served by one computation, so only whole groups are worth dropping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.weightstats import DescrStatsW

from retrain_assets.errors import BadInput
from retrain_assets.training.losses import NEGLIGIBLE

MIN_FIRST = 3
"""Origins of a first round at least: a spread must be seen before anything is judged by it."""

USUAL_FIRST = 6
"""Origins of a first round at most, unless another number is asked for."""


@dataclass(frozen=True)
class Racing:
    """How a race is run.

    level: of one comparison with the leader, in (0, 0.5); see `beaten` for what it means.
    first: origins of the first round; None for a quarter of them, from 3 to 6. following: origins
        of every later round.

    With the defaults, simulated tables of 192 settings in 48 groups on 26 origins cost 29 to
    40 % of the exhaustive rows (median), and the choice was within one paired standard error
    of the exhaustive one in 95 % of them or more, whether the groups were equal, up to two
    standard errors apart, alike or independent. A lower level keeps more and saves less.
    """

    level: float = 0.075
    first: int | None = None
    following: int = 1

    def __post_init__(self) -> None:
        """Raises BadInput naming a field that is out of range."""
        if not 0 < self.level < 0.5:
            raise BadInput(f"the racing level is {self.level}: give a number between 0 and 0.5")
        if self.first is not None and self.first < MIN_FIRST:
            raise BadInput(
                f"the first racing round has {self.first} origins: give at least {MIN_FIRST}"
            )
        if self.following < 1:
            raise BadInput(f"a racing round has {self.following} origins: give at least 1")

    def sizes(self, n_origins: int) -> tuple[int, ...]:
        """Origins of each round; together `n_origins`."""
        usual = min(USUAL_FIRST, max(MIN_FIRST, n_origins // 4))
        first = min(n_origins, self.first or usual)
        left = n_origins - first
        whole, rest = divmod(left, self.following)
        return (first, *[self.following] * whole, *([rest] if rest else []))

    def to_json(self) -> dict[str, Any]:
        """The parameters as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Round:
    """One question of a race.

    number: 1 for the first. origins: positions of the origins to measure, ascending.
    settings: positions of the settings still in the race, ascending.
    """

    number: int
    origins: NDArray[np.int64]
    settings: NDArray[np.int64]


@dataclass(frozen=True)
class Race:
    """What came of a race.

    losses: (origin, setting), NaN where a setting was not measured any more.
    dropped: (setting,), the round after which a setting left, 0 if it never did.
    rounds: how many there were.
    """

    losses: NDArray[np.float64]
    dropped: NDArray[np.int64]
    rounds: int


def race(
    measure: Callable[[Round], NDArray[np.float64]],
    *,
    groups: Sequence[int],
    order: NDArray[np.int64],
    rules: Racing | None,
    departures: NDArray[np.int64] | None = None,
) -> Race:
    """Run all rounds; with `rules` None, one round with everything.

    measure: returns the losses of a round, (origin, setting) in the round's order; all finite.
    groups: for each setting, which group it belongs to. order: positions of all origins, in
    the order they are taken (see `decisive_order`). departures: of each setting from the default,
    if there is one; then of the settings that depart least the best so far stays to the end. A
    choice takes it where nothing is better for certain, and the race itself cannot say so: it drops
    what lags, at a level of its own and round after round, which leaves few to tie with.
    """
    member, n_origins = np.asarray(groups), len(order)
    losses = np.full((n_origins, len(member)), np.nan)
    dropped = np.zeros(len(member), dtype=np.int64)
    sizes = (n_origins,) if rules is None else rules.sizes(n_origins)
    seen = 0
    for number, size in enumerate(sizes, start=1):
        settings = np.flatnonzero(dropped == 0)
        origins = np.sort(order[seen : seen + size])
        losses[np.ix_(origins, settings)] = measure(Round(number, origins, settings))
        seen += size
        if rules is not None and seen < n_origins:
            so_far = losses[np.ix_(order[:seen], settings)]
            hopeless = beaten(so_far, n_origins=n_origins, level=rules.level)
            if departures is not None:
                near = np.flatnonzero(departures[settings] == departures.min())
                if len(near):
                    hopeless[near[np.argmin(so_far[:, near].mean(axis=0))]] = False
            hoping = np.unique(member[settings[~hopeless]])
            dropped[settings[~np.isin(member[settings], hoping)]] = number
    return Race(losses, dropped, len(sizes))


def beaten(losses: NDArray[np.float64], *, n_origins: int, level: float) -> NDArray[np.bool_]:
    """Which settings are held to end behind the leader, (setting,).

    losses: (origin, setting) of the origins seen so far, of `n_origins` in all. The leader is
    the setting with the smallest mean loss so far. A setting is beaten when a one-sided paired
    t test of "its mean loss over all `n_origins` is not above the leader's" has p < `level`,
    and it lags by more than NEGLIGIBLE: a choice would take it for the leader's equal.
    What is asked is the mean over a finite set of origins, part of which is known, so the
    variance carries the finite-population correction 1 - seen / n_origins (Cochran, Sampling
    Techniques, 1977, section 2.6); under normal differences p is the chance, predicted from
    the origins seen, that the setting still overtakes the leader.

    The level holds for one comparison in one round. It is not adjusted for the number of
    settings, for the rounds, nor for the leader being the luckiest so far, all of which drop
    more than the level says. So nothing is promised about keeping the best setting; what the
    race is meant to keep is its loss, within the noise of the origins.
    """
    seen = len(losses)
    leader = losses[:, np.argmin(losses.mean(axis=0))]
    behind = losses - leader[:, None]
    mean = behind.mean(axis=0)
    corrected = mean + (behind - mean) * np.sqrt(1 - seen / n_origins)
    with np.errstate(divide="ignore", invalid="ignore"):
        _, p_values, _ = DescrStatsW(corrected).ttest_mean(0.0, alternative="larger")
    # Differences that are all 0 have no p value: that setting is level with the leader.
    lags = mean > NEGLIGIBLE * leader.mean()
    return np.asarray((np.nan_to_num(p_values, nan=1.0) < level) & lags)


def decisive_order(naive_losses: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order in which a race takes origins: where naive erred most, first.

    naive_losses: (origin,), known before any model forecasts. A mean loss is made by the
    origins with the largest losses, and so are the differences between settings. Seen first,
    they leave little that could overturn a ranking; the origins still to come differ less than
    those seen, so the test of `beaten` errs on the side of keeping. In the order of time one
    stormy week near the end may undo whatever the calm ones before it said.
    """
    return np.argsort(-naive_losses, kind="stable")
