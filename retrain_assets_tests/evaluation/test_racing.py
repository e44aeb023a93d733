"""Racing on error tables of known spread: what it costs, and what it gives away."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.choice import choose
from retrain_assets.evaluation.racing import Race, Racing, Round, beaten, decisive_order, race
from retrain_assets.training.losses import NEGLIGIBLE

SIZES = np.array([5, 10, 20, 50])
N_GROUPS = 48
GROUPS = np.repeat(np.arange(N_GROUPS), len(SIZES))
COSTS = np.tile(SIZES, N_GROUPS)
# The default has no top_k, the last of 3, and the second top_p of 4; its temperature is not tried.
TOP_K, TOP_P = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")
DEPARTURES = 2 + np.repeat(np.tile(((TOP_K != 2) * 1 + (TOP_P != 1)).ravel(), 4), len(SIZES))
N_ORIGINS = 26
TRIALS = 300


class Regime(NamedTuple):
    """How an error table is made; all spreads in paired standard errors of two groups' means.

    quality: standard deviation of the groups' true means. best: by how much one group is
    better than that. volatility: of the log scale of an origin, which both losses and their
    differences share; 11 real grids (Kronos nano, 6 stocks) had .4 to .7. correlated: groups
    that are near in the grid err alike. paths: noise of one path over that of a group.
    """

    quality: float = 0.0
    best: float = 0.0
    volatility: float = 0.6
    correlated: bool = True
    paths: float = 2.0


REGIMES = {
    "all equal": Regime(),
    "all equal, independent": Regime(correlated=False),
    "all equal, steady origins": Regime(volatility=0.0),
    "all equal, noisy paths": Regime(paths=5.0),
    "half an error apart": Regime(quality=0.5),
    "one error apart": Regime(quality=1.0),
    "two errors apart, steady origins": Regime(quality=2.0, volatility=0.0),
    "one stands out, steady origins": Regime(best=2.0, volatility=0.0, correlated=False),
}
QUICK = ("all equal", "one error apart")


def error_table(regime: Regime, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Losses (origin, setting) of 48 groups of nested sizes, and those of naive (origin,)."""
    temperature, top_k, top_p = (
        axis.ravel() for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in (4, 3, 4)))
    )
    noise = rng.normal(size=(N_ORIGINS, N_GROUPS))
    if regime.correlated:
        loads = np.stack([temperature, top_k, top_p, temperature * top_p])
        noise = 0.5 * noise + rng.normal(size=(N_ORIGINS, len(loads))) @ loads
    noise /= noise.std()
    # The variance of a difference of two groups, on average over all pairs of them.
    apart = 2 * (noise - noise.mean(axis=1, keepdims=True)).var(axis=0, ddof=1).mean()
    error = np.sqrt(apart / N_ORIGINS)
    quality = regime.quality * error * rng.normal(size=N_GROUPS)
    quality[rng.integers(N_GROUPS)] -= regime.best * error
    # The mean of the first n of 50 paths; the fewer they are, the larger the error.
    paths = regime.paths * rng.normal(size=(N_ORIGINS, N_GROUPS, SIZES[-1]))
    nested = paths.cumsum(axis=2)[:, :, SIZES - 1] / SIZES + 5 * error / SIZES
    scale = np.exp(regime.volatility * rng.normal(size=N_ORIGINS))
    naive = 2 + rng.gamma(2, 0.5, N_ORIGINS)
    losses = naive[:, None, None] + (noise + quality)[:, :, None] + nested
    return (scale[:, None, None] * losses).reshape(N_ORIGINS, -1), scale * naive


def raced(measure: Callable[[Round], np.ndarray], naive: np.ndarray, rules: Racing) -> Race:
    """A race as a search runs it."""
    return race(
        measure,
        groups=GROUPS.tolist(),
        order=decisive_order(naive),
        rules=rules,
        departures=DEPARTURES,
    )


def regret_and_share(losses: np.ndarray, naive: np.ndarray, rules: Racing) -> tuple[float, float]:
    """Mean loss above that of the exhaustive choice in paired standard errors; rows spent."""
    rows = 0

    def measure(asked: Round) -> np.ndarray:
        nonlocal rows
        rows += SIZES[-1] * len(np.unique(GROUPS[asked.settings])) * len(asked.origins)
        return losses[np.ix_(asked.origins, asked.settings)]

    found = choose(raced(measure, naive, rules).losses, COSTS, DEPARTURES).chosen
    wanted = choose(losses, COSTS, DEPARTURES).chosen
    share = rows / (SIZES[-1] * N_GROUPS * len(losses))
    if found == wanted:
        return 0.0, share
    above = losses[:, found] - losses[:, wanted]
    return float(above.mean() / (above.std(ddof=1) / np.sqrt(len(above)))), share


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in REGIMES],
)
def test_a_race_gives_little_away_and_saves_much(name: str) -> None:
    rng = np.random.default_rng(20)
    trials = np.array(
        [regret_and_share(*error_table(REGIMES[name], rng), Racing()) for _ in range(TRIALS)]
    )
    regret, share = trials.T
    assert np.mean(regret <= 1) >= 0.95
    assert np.median(share) <= 0.40


@pytest.mark.parametrize("name", ["all equal", "all equal, independent"])
def test_where_nothing_is_better_a_race_stays_as_near_the_default(name: str) -> None:
    """The survivors of a race are few; without the nearest the choice would wander off."""
    rng = np.random.default_rng(21)
    apart, wandering = [], []
    for _ in range(60):
        losses, naive = error_table(REGIMES[name], rng)

        def measure(asked: Round, losses: np.ndarray = losses) -> np.ndarray:
            return losses[np.ix_(asked.origins, asked.settings)]

        wanted = DEPARTURES[choose(losses, COSTS, DEPARTURES).chosen]
        kept = raced(measure, naive, Racing()).losses
        free = race(
            measure, groups=GROUPS.tolist(), order=decisive_order(naive), rules=Racing()
        ).losses
        apart.append(DEPARTURES[choose(kept, COSTS, DEPARTURES).chosen] - wanted)
        wandering.append(DEPARTURES[choose(free, COSTS, DEPARTURES).chosen] - wanted)
    assert np.mean(apart) < 0.25
    assert np.mean(np.array(apart) == 0) > 0.8
    assert np.mean(wandering) > 0.8


def test_what_a_choice_would_take_for_equal_is_kept() -> None:
    leader = np.random.default_rng(0).gamma(4, 1, (6, 1))
    losses = leader * [1, 1 + NEGLIGIBLE / 2, 1 + 2 * NEGLIGIBLE]
    assert beaten(losses, n_origins=26, level=0.07).tolist() == [False, False, True]


def test_a_first_round_is_as_long_as_asked() -> None:
    assert Racing().sizes(26)[0] == 6
    assert Racing().sizes(8)[0] == 3
    assert Racing(first=12).sizes(26) == (12, *[1] * 14)
    assert Racing(first=12).sizes(8) == (8,)


@pytest.mark.long
def test_a_reckless_race_is_caught_by_the_same_measure() -> None:
    rng = np.random.default_rng(20)
    reckless = Racing(level=0.45, first=3)
    regime = REGIMES["one stands out, steady origins"]
    regret = [regret_and_share(*error_table(regime, rng), reckless)[0] for _ in range(TRIALS)]
    assert np.mean(np.array(regret) <= 1) < 0.8


def test_stormy_origins_first_are_better_than_last() -> None:
    rng = np.random.default_rng(20)
    tables = [error_table(REGIMES["all equal"], rng) for _ in range(60)]
    first, last = (
        np.mean([regret_and_share(losses, sign * naive, Racing())[0] for losses, naive in tables])
        for sign in (1, -1)
    )
    assert first < 0.25 * last


def test_the_level_is_that_of_one_comparison_with_a_fixed_rival() -> None:
    """Of two equal settings the one behind is the rival's loser by chance, either of the two.

    With so many origins to come that those seen tell nothing for certain, the one that lags is
    held beaten in 2 x level of all tables: level for each of the two.
    """
    rng = np.random.default_rng(0)
    tables = rng.normal(size=(2000, 13, 2))
    for level in (0.05, 0.2):
        lost = np.mean([beaten(t, n_origins=10**6, level=level).any() for t in tables])
        assert lost == pytest.approx(2 * level, abs=0.02)


def test_a_setting_called_beaten_seldom_overtakes_the_leader() -> None:
    """The p value is a forecast: of those called beaten at .2, fewer than that come back."""
    rng = np.random.default_rng(1)
    tables = rng.normal(size=(4000, 26, 2))
    back = []
    for losses in tables:
        behind = int(losses[:13].mean(axis=0).argmax())
        if beaten(losses[:13], n_origins=26, level=0.2)[behind]:
            back.append(losses.mean(axis=0).argmin() == behind)
    assert len(back) > 500
    assert 0.02 < np.mean(back) < 0.2


def test_only_whole_groups_leave_and_only_when_all_in_them_are_beaten() -> None:
    rng = np.random.default_rng(2)
    losses = rng.gamma(4, 1, (12, 1)) + 0.01 * rng.normal(size=(12, 6))
    losses[:, 2] += 1  # its group's other setting is as good as the leader
    losses[:, 4:] += 1
    asked: list[Round] = []

    def measure(now: Round) -> np.ndarray:
        asked.append(now)
        return losses[np.ix_(now.origins, now.settings)]

    got = race(
        measure, groups=[0, 0, 1, 1, 2, 2], order=np.arange(12)[::-1], rules=Racing(level=0.001)
    )
    assert got.dropped.tolist() == [0, 0, 0, 0, 1, 1]
    assert got.rounds == len(asked) == 10
    assert asked[0].origins.tolist() == [9, 10, 11], "the last three, as the order says"
    assert asked[1].settings.tolist() == [0, 1, 2, 3]
    assert np.isnan(got.losses[:, 4:]).sum() == 2 * 9
    np.testing.assert_array_equal(got.losses[:, :4], losses[:, :4])


def test_without_rules_everything_is_measured_in_one_round() -> None:
    losses = np.random.default_rng(3).normal(size=(9, 4))
    got = race(
        lambda now: losses[np.ix_(now.origins, now.settings)],
        groups=[0, 0, 1, 1],
        order=np.arange(9),
        rules=None,
    )
    assert got.rounds == 1
    assert not got.dropped.any()
    np.testing.assert_array_equal(got.losses, losses)


def test_settings_that_never_differ_are_never_beaten() -> None:
    losses = np.repeat(np.random.default_rng(4).normal(size=(6, 1)), 3, axis=1)
    losses[:, 2] += 0.5
    assert beaten(losses, n_origins=26, level=0.1).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("n_origins", "first", "rounds"), [(26, 6, 21), (12, 3, 10), (8, 3, 6), (3, 3, 1)]
)
def test_few_origins_make_a_short_first_round(n_origins: int, first: int, rounds: int) -> None:
    sizes = Racing().sizes(n_origins)
    assert (sizes[0], len(sizes), sum(sizes)) == (first, rounds, n_origins)
    assert sum(Racing(following=4).sizes(n_origins)) == n_origins


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"level": 0.0}, "between 0 and 0.5"),
        ({"level": 0.5}, "between 0 and 0.5"),
        ({"first": 2}, "at least 3"),
        ({"following": 0}, "at least 1"),
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Racing(**wrong)  # type: ignore[arg-type]  # int or float, as the field has it
