"""The promotion rule: what it says, and how often a year of it is wrong or blind.

The years are simulated as series of losses: nothing is trained. Each month 3 new origins of 7
bars take the place of the oldest 3 of 26, a search tries its settings anew, its choice becomes
candidate, and 3 test origins more are pooled, until something is promoted.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.evaluation import promotion
from retrain_assets.evaluation.choice import choose
from retrain_assets.evaluation.promotion import Decision, Evidence, Rules, decide

ORIGINS, NEW, MONTHS, BARS = 26, 3, 12, 7
QUICK = Rules(repetitions=499)


@dataclass(frozen=True)
class World:
    """What a year of losses is drawn from.

    settings: how many are tried, by family: one family for its champion, all for the pointer.
    gain: share of the incumbent's loss by which all of them err less. alike: correlation of the
    leads of two settings of one family. lasting: share of a lead's variance that stays from month
    to month on the same origin; the rest comes with each month's new adapter. greedy: the least
    loss is chosen, not the cheapest setting that ties with it. error: standard error of a month's
    skill.
    """

    settings: tuple[int, ...]
    gain: float = 0.0
    alike: float = 0.7
    lasting: float = 0.5
    greedy: bool = False
    error: float = 0.02

    def months(self, seed: int) -> Iterator[Evidence]:
        """Evidence of each month of a year."""
        rng = np.random.default_rng(seed)
        incumbent = incumbent_losses(rng)
        size = self.error * np.sqrt(ORIGINS) * incumbent.mean() / np.sqrt((incumbent**2).mean())
        stays = self.noise(rng, len(incumbent))
        tested: list[tuple[float, float]] = []
        for month in range(MONTHS):
            seen = slice(NEW * month, NEW * month + ORIGINS + NEW)
            new = self.noise(rng, ORIGINS + NEW)
            lead = np.sqrt(self.lasting) * stays[seen] + np.sqrt(1 - self.lasting) * new
            lead = np.clip(self.gain + size * lead, None, 0.95)
            losses = incumbent[seen, None] * (1 - lead)
            chosen = self.choice(losses[:ORIGINS])
            own = losses[:, chosen]
            tested += zip(own[ORIGINS:], incumbent[seen][ORIGINS:], strict=True)
            test_candidate, test_incumbent = np.array(tested).T
            yield Evidence(
                candidate_id=f"month {month}",
                incumbent_id="first",
                candidate=own[:ORIGINS],
                incumbent=incumbent[seen][:ORIGINS],
                tried=losses[:ORIGINS],
                test_candidate=test_candidate,
                test_incumbent=test_incumbent,
            )

    def noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Heavy-tailed leads of variance 1, (origin, setting)."""
        families = []
        for count in self.settings:
            shared = np.sqrt(self.alike) * rng.standard_t(5, (n, 1))
            own = np.sqrt(1 - self.alike) * rng.standard_t(5, (n, count))
            families.append(np.sqrt(3 / 5) * (shared + own))
        return np.concatenate(families, axis=1)

    def choice(self, losses: np.ndarray) -> int:
        """Each family chooses a setting; of those the one with the least loss is candidate."""
        means = losses.mean(axis=0)
        if self.greedy:
            return int(means.argmin())
        ends = np.cumsum(self.settings)
        chosen = []
        for first, end in zip(ends - self.settings, ends, strict=True):
            costs, departures = np.resize([5, 10, 20, 50], end - first), np.arange(end - first) % 4
            chosen.append(first + choose(losses[:, first:end], costs, departures).chosen)
        return int(min(chosen, key=lambda setting: means[setting]))


def incumbent_losses(rng: np.random.Generator) -> np.ndarray:
    """Mean absolute errors of standing still on a walk whose storms last, (origin,)."""
    n = ORIGINS + NEW * MONTHS
    storm = np.zeros(n)
    for i in range(1, n):
        storm[i] = 0.8 * storm[i - 1] + 0.3 * rng.normal()
    steps = 0.02 * np.exp(storm)[:, None] * rng.standard_t(5, (n, BARS))
    return np.asarray(np.abs(steps.cumsum(axis=1)).mean(axis=1))


def share_promoted(world: World, walks: int, rules: Rules = QUICK) -> float:
    """Share of simulated years in which anything is ever promoted."""
    years = (world.months(seed) for seed in range(walks))
    return float(np.mean([any(decide(e, rules).promote for e in year) for year in years]))


CHAMPION, POINTER = World((6,)), World((48, 6))


def test_the_simulated_skill_has_the_standard_error_it_is_meant_to_have() -> None:
    months = [next(replace(CHAMPION, gain=0.1).months(seed)) for seed in range(300)]
    skills = [1 - m.tried[:, 0].sum() / m.incumbent.sum() for m in months]
    assert np.mean(skills) == pytest.approx(0.1, abs=0.004)
    assert np.std(skills) == pytest.approx(0.02, rel=0.15)
    two = list(itertools.islice(CHAMPION.months(0), 2))
    np.testing.assert_array_equal(two[0].incumbent[NEW:], two[1].incumbent[:-NEW])
    assert [len(month.test_candidate) for month in two] == [NEW, 2 * NEW]


@pytest.mark.parametrize(
    "world", [pytest.param(CHAMPION, marks=pytest.mark.long), POINTER], ids=["champion", "pointer"]
)
def test_of_years_without_skill_at_most_one_in_twenty_promotes_anything(world: World) -> None:
    assert share_promoted(world, 200) <= 0.05


@pytest.mark.parametrize("world", [CHAMPION, POINTER], ids=["champion", "pointer"])
def test_a_gain_of_ten_percent_is_promoted_within_the_year(world: World) -> None:
    assert share_promoted(replace(world, gain=0.1), 30) >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("settings", [(1,), (48,), (192,), (192, 6)], ids=str)
@pytest.mark.parametrize("lasting", [0.0, 1.0])
@pytest.mark.parametrize("greedy", [False, True], ids=["ties", "greedy"])
def test_the_rule_holds_however_many_are_tried(
    settings: tuple[int, ...], lasting: float, greedy: bool
) -> None:
    world = World(settings, lasting=lasting, greedy=greedy)
    rules = Rules(repetitions=1999)
    assert share_promoted(world, 200, rules) <= 0.05
    assert share_promoted(replace(world, gain=0.1), 60, rules) >= 0.9


def evidence(gain: float, *, origins: int = ORIGINS, tests: int = 9, tried: int = 6) -> Evidence:
    """A candidate with a mean lead of `gain` on selection and test, one of several settings.

    The others are as good as the incumbent. Leads have a standard deviation of .1.
    """
    rng = np.random.default_rng(5)
    incumbent = rng.gamma(4, 0.01, origins + tests)
    noise = rng.normal(size=(origins + tests, tried))
    noise = 0.1 * (noise - noise[:origins].mean(axis=0)) / noise[:origins].std(axis=0)
    noise[:, 0] += gain
    losses = incumbent[:, None] * (1 - noise)
    return Evidence(
        candidate_id="new",
        incumbent_id="old",
        candidate=losses[:origins, 0],
        incumbent=incumbent[:origins],
        tried=losses[:origins],
        test_candidate=incumbent[origins:] * (1 - gain - 0.01 * rng.normal(size=tests)),
        test_incumbent=incumbent[origins:],
    )


def test_a_clear_gain_is_promoted_and_says_why() -> None:
    decision = decide(evidence(0.2), QUICK)
    assert decision.promote
    assert decision.reason.startswith("it errs ")
    assert "% less on 26 selection origins, p 0.002 over 6 settings tried, and " in decision.reason
    assert decision.reason.endswith("% less on 9 test origins")
    assert (decision.candidate, decision.incumbent) == ("new", "old")
    numbers = decision.numbers
    assert (numbers["origins"], numbers["test_origins"], numbers["tried"]) == (26, 9, 6)
    assert numbers["level"] == pytest.approx(0.05 / 24)
    assert numbers["selection_gain_pct"] == pytest.approx(20, abs=4)
    assert numbers["test_gain_pct"] == pytest.approx(20, abs=1)
    assert max(numbers["sign_p"] or 1, numbers["spa_p"] or 1) <= 0.05 / 24
    assert numbers["veto_p"] is not None
    assert numbers["veto_p"] > 0.9
    assert decision == decide(evidence(0.2), QUICK)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    with pytest.raises(BadInput, match=r"lacks \['reason'\]"):
        Decision.from_json({k: v for k, v in decision.to_json().items() if k != "reason"})


def test_what_is_there_already_is_not_promoted() -> None:
    decision = decide(replace(evidence(0.2), candidate_id="old"), QUICK)
    assert (decision.promote, decision.reason) == (False, "it is in production already")


def test_a_candidate_that_errs_as_much_or_more_is_not_promoted() -> None:
    given = evidence(0.2)
    same = decide(replace(given, candidate=given.incumbent), QUICK)
    assert (same.promote, same.reason) == (False, "it errs no less on 26 selection origins")
    worse = decide(evidence(-0.05), QUICK)
    assert not worse.promote
    assert "% more on 26 selection origins" in worse.reason
    nothing = np.zeros(ORIGINS)
    never = decide(replace(given, candidate=nothing, incumbent=nothing), QUICK)
    assert (never.promote, never.numbers["selection_gain_pct"]) == (False, None)


def test_few_origins_decide_nothing() -> None:
    seven = decide(evidence(0.5, origins=7), QUICK)
    assert (seven.promote, seven.numbers["origins"]) == (False, 7)
    assert seven.reason == "7 selection origins decide nothing, 8 are needed"
    eight = decide(evidence(0.5, origins=8, tried=1), QUICK)
    assert (eight.promote, eight.numbers["sign_p"]) == (False, 1 / 256)
    assert decide(evidence(0.5, origins=9, tried=1), QUICK).promote


def test_luck_among_many_is_counted_and_not_alone() -> None:
    """A lead that would do for a candidate that stood alone does not for the best of hundreds."""
    given = evidence(0.13)
    alone = decide(replace(given, tried=given.candidate[:, None]), Rules())
    assert (alone.promote, alone.numbers["tried"]) == (True, 1)
    noise = np.random.default_rng(0).normal(size=(ORIGINS, 300))
    crowd = replace(given, tried=given.incumbent[:, None] * (1 - 0.1 * noise))
    counted = decide(crowd, Rules())
    assert (counted.promote, counted.numbers["tried"]) == (False, 301)
    assert "which may be luck: random signs over 301 settings tried give p" in counted.reason


def test_the_candidate_counts_once_whether_or_not_it_is_among_those_tried() -> None:
    given = evidence(0.2)
    twice = np.column_stack([given.tried, given.tried, given.candidate * (1 + 1e-12)])
    without = given.tried[:, 1:]
    reference = decide(given, QUICK)
    for tried in (twice, without, without[:, ::-1]):
        decision = decide(replace(given, tried=tried), QUICK)
        assert decision.numbers["tried"] == 6
        assert decision.numbers["sign_p"] == reference.numbers["sign_p"]


def test_another_settings_lead_does_not_carry_the_candidate() -> None:
    """Hansen's test alone would promote here: it asks whether anything leads."""
    given = evidence(0.02)
    lucky = given.incumbent * (1 - evidence(0.3).tried[:, 0])
    decision = decide(replace(given, tried=np.column_stack([given.tried, lucky])), QUICK)
    assert not decision.promote
    assert "random signs" in decision.reason


def test_hansens_test_is_asked_last_and_has_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "spa_p_value", lambda *_, **__: 0.01)
    refused = decide(evidence(0.2), QUICK)
    assert (refused.promote, refused.numbers["spa_p"]) == (False, 0.01)
    assert "Hansen's test over 6 settings tried give p 0.01, 0.0021 is needed" in refused.reason

    def unasked(*_: object, **__: object) -> float:
        raise AssertionError("it was asked for nothing")

    monkeypatch.setattr(promotion, "spa_p_value", unasked)
    weak = decide(evidence(0.03), QUICK)
    assert (weak.promote, weak.numbers["spa_p"]) == (False, None)


def test_a_significant_loss_on_the_test_forbids_it() -> None:
    given = evidence(0.2)
    noise = np.random.default_rng(1).normal(0.2, 0.05, len(given.test_incumbent))
    worse = replace(given, test_candidate=given.test_incumbent * (1 + noise))
    decision = decide(worse, QUICK)
    assert not decision.promote
    assert "% less on 26 selection origins, but " in decision.reason
    assert "% more on 9 test origins, p " in decision.reason
    assert (decision.numbers["veto_p"] or 1) < 0.05
    assert decide(worse, replace(QUICK, veto_level=1e-12)).promote
    some = np.where(np.arange(len(noise)) % 2, 0.3, -0.28)
    assert decide(replace(given, test_candidate=given.test_incumbent * (1 + some)), QUICK).promote


@pytest.mark.parametrize("tests", [0, 1])
def test_too_few_test_origins_forbid_nothing(tests: int) -> None:
    given = evidence(0.2, tests=tests)
    decision = decide(replace(given, test_candidate=2 * given.test_incumbent), QUICK)
    assert (decision.promote, decision.numbers["veto_p"]) == (True, None)
    assert decision.numbers["test_gain_pct"] == (None if tests == 0 else pytest.approx(-100))
    assert ("on 1 test origin" in decision.reason) == bool(tests)


def test_what_a_race_dropped_counts_as_no_lead() -> None:
    given = evidence(0.2)
    tried = given.tried.copy()
    tried[6:, 3] = np.nan
    decision = decide(replace(given, tried=tried), QUICK)
    assert (decision.promote, decision.numbers["tried"]) == (True, 6)


def test_a_change_may_have_to_be_worth_something() -> None:
    assert not decide(evidence(0.2), replace(QUICK, smallest_gain=0.3)).promote
    reason = decide(evidence(0.2), replace(QUICK, smallest_gain=0.3)).reason
    assert reason.endswith("selection origins, and 30 % is the least that counts")
    assert decide(evidence(0.2), replace(QUICK, smallest_gain=0.05)).promote


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("yearly_error", 0.0),
        ("yearly_error", float("nan")),
        ("looks", 0),
        ("decisions", 0),
        ("veto_level", 0.5),
        ("min_origins", 2),
        ("repetitions", 478),
        ("smallest_gain", -0.1),
        ("smallest_gain", 2),
    ],
)
def test_a_rule_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"^{name} is {value}: give"):
        Rules(**{name: value})  # type: ignore[arg-type]  # int or float, as the field has it


def test_a_year_of_decisions_shares_the_years_error() -> None:
    rules = Rules(yearly_error=0.1, looks=4, decisions=1)
    assert rules.level == pytest.approx(0.025)
    assert Rules(**json.loads(json.dumps(rules.to_json()))) == rules
    assert Rules(repetitions=479).level >= 1 / 480, "the fewest repetitions that can ever promote"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("candidate", np.ones(25)),
        ("incumbent", np.ones((26, 1))),
        ("candidate", np.full(26, np.nan)),
        ("incumbent", np.full(26, -1.0)),
        ("tried", np.ones((25, 3))),
        ("tried", np.ones(26)),
        ("tried", np.full((26, 2), np.inf)),
        ("test_candidate", np.ones(8)),
        ("test_incumbent", np.full(9, np.nan)),
    ],
)
def test_evidence_that_is_none_is_named(name: str, value: np.ndarray) -> None:
    with pytest.raises(BadInput, match=name):
        replace(evidence(0.1), **{name: value})
