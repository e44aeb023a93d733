"""One month's decisions on one stock: a champion per family, and what production points to.

The incumbents are those of the month before, first the base as published and naive. What a month
decides is a record in JSON, which the next month begins with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooling import relative_losses
from retrain_assets.evaluation.promotion import Decision, Evidence, Rules, decide
from retrain_assets.evaluation.versions import NAIVE_VERSION, POINTER, Version
from retrain_assets.market.calendar import month_before
from retrain_assets.models.forecaster import families

Record = Mapping[str, Any]
Losses = dict[str, NDArray[np.float64]]
"""Losses by segment (selection, test), one an origin, each divided by the origin's close."""

HISTORY_MONTHS = 24
"""Months whose test origins are pooled: older ones say little about today's models."""


@dataclass(frozen=True)
class Occasion:
    """Which month of which stock is decided on.

    cut: its last bar. final: its last session is stored, so that it may decide at all.
    live: it is the stock's latest final month, so that its decisions go into production.
    decided_at: ISO time.
    """

    symbol: str
    month: str
    cut: str
    final: bool
    live: bool
    decided_at: str


@dataclass(frozen=True)
class Standing:
    """What is in place before the decision: champions and since when, and the pointer's target."""

    champions: dict[str, tuple[Version, str]]
    to: str
    since: str

    @property
    def pointed(self) -> Version:
        """The version in production."""
        return NAIVE_VERSION if self.to == NAIVE else self.champions[self.to][0]


def standing(previous: Record | None, comparison: Record | None) -> Standing:
    """What was decided before; a family that is new begins with its base as published.

    A family that is no longer there is forgotten, and production then points to naive.
    """
    champions: dict[str, tuple[Version, str]] = {}
    if comparison is not None:
        for name, version in comparison["zero_shot"].items():
            champions[name] = (Version.from_json(version), comparison["month"])
    to, since = NAIVE, ""
    if previous is not None:
        for name, state in previous["families"].items():
            if name in families():
                champions[name] = (Version.from_json(state["champion"]), state["since"])
        to, since = previous["pointer"]["to"], previous["pointer"]["since"]
    if to != NAIVE and to not in champions:
        to, since = NAIVE, ""
    return Standing(champions, to, since)


def known_column(version: Version, comparison: Record) -> str | None:
    """The column of a comparison that holds a version's forecasts, if one does."""
    if version.family == NAIVE:
        return NAIVE
    named = {f"{f}.zero_shot": v for f, v in comparison["zero_shot"].items()}
    named |= {f"{f}.last_month": v for f, v in comparison["last_month"].items()}
    named |= {entry["name"]: entry["version"] for entry in comparison["candidates"].values()}
    for column, value in named.items():
        if Version.from_json(value).id == version.id:
            return column
    return None


def to_forecast(before: Standing, comparison: Record) -> list[Version]:
    """Incumbents that the comparison has no column of, to be forecast on its origins."""
    versions = [version for version, _ in before.champions.values()]
    return [version for version in versions if known_column(version, comparison) is None]


def column_losses(comparison: Record, column: str) -> Losses:
    """Losses of one of a comparison's columns."""
    return {
        segment: relative_losses(table)[column].to_numpy()
        for segment, table in comparison["losses"].items()
    }


def decide_month(
    occasion: Occasion,
    before: Standing,
    *,
    comparison: Record | None,
    previous: Record | None,
    forecast: Mapping[str, Losses],
    tried: Mapping[str, NDArray[np.float64]],
    rules: Rules,
    unjudged: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Decide on every family and on the pointer; returns the champion record as JSON values.

    comparison: the stock's record of the month; None keeps everything as it is. previous: the
    record that `before` was read from. forecast: losses of the versions in `to_forecast`, by id.
    tried: by family the relative losses of everything its searches tried, (origin, setting).

    unjudged: why an incumbent cannot be judged on these origins, by version id: it was fitted on
    them. It keeps its place, and does not rival what production points to.

    A month that is not final decides nothing. Raises BadInput if an incumbent was not forecast.
    """
    if comparison is None or not occasion.final:
        why = "no comparison of this month" if comparison is None else "the month is not over"
        return _kept(occasion, before, previous, f"{why}: everything stays as it is")
    scored = _Scored(comparison, forecast)
    history = _earlier(previous, occasion.month)
    barred = dict(unjudged or {})
    decisions = {
        name: _decide_family(name, before, scored, history, tried, rules, seed, barred)
        for name in before.champions
    }
    champions = {name: Version.from_json(state["champion"]) for name, state in decisions.items()}
    pointer = _decide_pointer(before, champions, scored, history, tried, rules, seed, barred)
    return _record(occasion, previous) | {
        "families": decisions,
        "pointer": pointer,
        "losses": scored.table(before),
        "history": history,
    }


@dataclass(frozen=True)
class _Scored:
    """Losses of every version that takes part, on the origins of one comparison."""

    comparison: Record
    forecast: Mapping[str, Losses]

    def of(self, version: Version) -> Losses:
        if version.id in self.forecast:
            return self.forecast[version.id]
        column = known_column(version, self.comparison)
        if column is None:
            raise BadInput(f"{version.title} ({version.id}) was not forecast on these origins")
        return column_losses(self.comparison, column)

    def candidate(self, family: str) -> Version | None:
        found = self.comparison["candidates"].get(family)
        return None if found is None else Version.from_json(found["version"])

    def rows(self, candidate: Version, incumbent: Version) -> list[dict[str, Any]]:
        """Test losses of a pair beside naive's, one row an origin."""
        pair = {"candidate": self.of(candidate), "incumbent": self.of(incumbent)}
        pair["naive"] = self.of(NAIVE_VERSION)
        return [
            {"month": self.comparison["month"], "cutoff": cutoff}
            | {name: float(losses["test"][place]) for name, losses in pair.items()}
            for place, cutoff in enumerate(self.comparison["losses"]["test"]["cutoff"])
        ]

    def table(self, before: Standing) -> dict[str, dict[str, list[Any]]]:
        """Losses in price units: naive, each family's incumbent and candidate, the pointer's."""
        columns = {NAIVE: NAIVE_VERSION, f"{POINTER}.incumbent": before.pointed}
        for name, (version, _) in before.champions.items():
            columns[f"{name}.incumbent"] = version
            if (candidate := self.candidate(name)) is not None:
                columns[f"{name}.candidate"] = candidate
        found: dict[str, dict[str, list[Any]]] = {}
        for segment, table in self.comparison["losses"].items():
            close = np.array(table["origin_close"])
            found[segment] = {"cutoff": table["cutoff"], "origin_close": table["origin_close"]} | {
                name: (self.of(version)[segment] * close).tolist()
                for name, version in columns.items()
            }
        return found


def _decide_family(
    name: str,
    before: Standing,
    scored: _Scored,
    history: dict[str, list[dict[str, Any]]],
    tried: Mapping[str, NDArray[np.float64]],
    rules: Rules,
    seed: int,
    unjudged: Mapping[str, str],
) -> dict[str, Any]:
    """Whether a family's candidate takes the champion's place."""
    incumbent, since = before.champions[name]
    candidate = scored.candidate(name)
    if candidate is None:
        decision = _no(incumbent.id, incumbent.id, "no candidate of this month", rules)
    elif incumbent.id in unjudged:
        decision = _no(candidate.id, incumbent.id, unjudged[incumbent.id], rules)
    else:
        history[name] = [*history.get(name, []), *scored.rows(candidate, incumbent)]
        settings = tried.get(name, _column(scored, candidate))
        evidence = _evidence(candidate, incumbent, scored, settings, history[name])
        decision = decide(evidence, rules, seed=seed)
    won = candidate is not None and decision.promote
    return {
        "champion": (candidate if won and candidate else incumbent).to_json(),
        "since": scored.comparison["month"] if won else since,
        "candidate": None if candidate is None else candidate.to_json(),
        "incumbent": incumbent.to_json(),
        "decision": decision.to_json(),
    }


def _decide_pointer(
    before: Standing,
    champions: Mapping[str, Version],
    scored: _Scored,
    history: dict[str, list[dict[str, Any]]],
    tried: Mapping[str, NDArray[np.float64]],
    rules: Rules,
    seed: int,
    unjudged: Mapping[str, str],
) -> dict[str, Any]:
    """Whether production should point elsewhere: the rival with the least selection loss.

    A family that production points to is followed to its new champion without more ado: that
    one replaced the old one on evidence.
    """
    choices = {NAIVE: NAIVE_VERSION, **champions}
    current = choices.pop(before.to)
    choices = {name: one for name, one in choices.items() if one.id not in unjudged}
    if current.id in unjudged or not choices:
        why = unjudged.get(current.id, "nothing else can be judged on these origins")
        return {
            "to": before.to,
            "version": current.to_json(),
            "since": before.since,
            "incumbent": before.pointed.to_json(),
            "decision": _no(current.id, current.id, why, rules).to_json(),
        }
    rival = min(choices, key=lambda name: float(scored.of(choices[name])["selection"].mean()))
    contender = choices[rival]
    history[POINTER] = [*history.get(POINTER, []), *scored.rows(contender, current)]
    columns = [_column(scored, version) for version in choices.values()]
    everything = np.concatenate([*columns, *tried.values()], axis=1)
    evidence = _evidence(contender, current, scored, everything, history[POINTER])
    decision = decide(evidence, rules, seed=seed)
    to = rival if decision.promote else before.to
    return {
        "to": to,
        "version": (contender if decision.promote else current).to_json(),
        "since": scored.comparison["month"] if decision.promote else before.since,
        "incumbent": before.pointed.to_json(),
        "decision": decision.to_json(),
    }


def _evidence(
    candidate: Version,
    incumbent: Version,
    scored: _Scored,
    tried: NDArray[np.float64],
    history: list[dict[str, Any]],
) -> Evidence:
    return Evidence(
        candidate_id=candidate.id,
        incumbent_id=incumbent.id,
        candidate=scored.of(candidate)["selection"],
        incumbent=scored.of(incumbent)["selection"],
        tried=tried,
        test_candidate=np.array([row["candidate"] for row in history]),
        test_incumbent=np.array([row["incumbent"] for row in history]),
    )


def _column(scored: _Scored, version: Version) -> NDArray[np.float64]:
    return scored.of(version)["selection"][:, None]


def _earlier(previous: Record | None, month: str) -> dict[str, list[dict[str, Any]]]:
    """Test losses of the months before, the last 24 of them."""
    if previous is None:
        return {}
    oldest = month_before(month, HISTORY_MONTHS)
    return {
        name: [row for row in rows if oldest <= row["month"] < month]
        for name, rows in previous["history"].items()
    }


def _kept(
    occasion: Occasion, before: Standing, previous: Record | None, reason: str
) -> dict[str, Any]:
    """A record in which everything stays as it is."""
    rules = Rules()
    families = {
        name: {
            "champion": version.to_json(),
            "since": since,
            "candidate": None,
            "incumbent": version.to_json(),
            "decision": _no(version.id, version.id, reason, rules).to_json(),
        }
        for name, (version, since) in before.champions.items()
    }
    pointed = before.pointed
    return _record(occasion, previous) | {
        "families": families,
        "pointer": {
            "to": before.to,
            "version": pointed.to_json(),
            "since": before.since,
            "incumbent": pointed.to_json(),
            "decision": _no(pointed.id, pointed.id, reason, rules).to_json(),
        },
        "losses": {},
        "history": dict(previous["history"]) if previous else {},
    }


def rolled_back(
    occasion: Occasion, target: Record, previous: Record | None, current: Standing
) -> dict[str, Any]:
    """Champions and pointer as another month's record has them, put back by hand.

    target: that record. current: what is in place until now.
    """
    reason = f"rolled back by hand to what {target['month']} decided"
    record = _kept(occasion, standing(target, None), previous, reason)
    for name, (version, _) in current.champions.items():
        if name in record["families"]:
            record["families"][name]["incumbent"] = version.to_json()
    record["pointer"]["incumbent"] = current.pointed.to_json()
    return record | {"rolled_back_to": target["month"]}


def _record(occasion: Occasion, previous: Record | None) -> dict[str, Any]:
    return {
        "symbol": occasion.symbol,
        "month": occasion.month,
        "cut": occasion.cut,
        "final": occasion.final,
        "live": occasion.live,
        "decided_at": occasion.decided_at,
        "previous_month": None if previous is None else previous["month"],
        "rolled_back_to": None,
        "notes": [],
    }


def _no(candidate: str, incumbent: str, reason: str, rules: Rules) -> Decision:
    return Decision(
        promote=False,
        reason=reason,
        candidate=candidate,
        incumbent=incumbent,
        numbers={},
        rules=rules.to_json(),
    )
