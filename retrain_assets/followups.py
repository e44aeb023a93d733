"""What can be asked of a stock after it was retrained: rungs of its ladder, a decision, a look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retrain_assets.definitions import COMPARE_STOCK, CONFIRM_STOCK, PROMOTE_STOCK, REFINE_STOCK
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import refined_name
from retrain_assets.home import Home
from retrain_assets.models.forecaster import family
from retrain_assets.work import QUIET, trained

if TYPE_CHECKING:
    from retrain_assets.training.adapter_store import ModelStore

DECIDED = ["comparison_summary", "regression_report", "guide_files"]
"""The month's assets that change when a stock is compared and decided on again."""


@dataclass(frozen=True)
class Compare:
    """A comparison of adapters and parameters that are stored already; nothing is decided.

    families: model families. all_of_them: whether a stock needs an adapter of each; else those of
        which it has one take part. holdout_days, prediction_length: for which the adapters must
        have been trained; None takes them as they are. force: forecast also what is stored and
        unchanged.
    """

    families: tuple[str, ...]
    all_of_them: bool = False
    holdout_days: int | None = None
    prediction_length: int | None = None
    seed: int = 0
    force: bool = False
    searched: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """The comparison alone."""
        return COMPARE_STOCK

    def assets(self) -> list[str]:
        """The comparison."""
        return ["comparison"]

    def on(self, store: ModelStore, month: str, symbol: str) -> Compare:
        """Those families of which the stock has an adapter.

        Raises BadInput if it has none, or lacks one that was asked for, and if one was trained for
        other lengths: origins further back were trained on or chosen on, so no comparison there
        would be fair.
        """
        adapters = {name: store.latest(name, month, symbol) for name in self.families}
        there = {name: adapter for name, adapter in adapters.items() if adapter is not None}
        run = f"retrain run --stocks {symbol} --month {month}"
        if not there or (self.all_of_them and len(there) < len(adapters)):
            lacking = " or ".join(name for name in adapters if name not in there)
            raise BadInput(f"no {lacking} adapter of {symbol} {month}: train one with `{run}`")
        for name, adapter in there.items():
            own = (adapter.split["holdout_days"], adapter.split["horizon"])
            asked = (self.holdout_days or own[0], self.prediction_length or own[1])
            if asked != own:
                raise BadInput(
                    f"the {name} adapter of {symbol} {month} was trained for holdout_days "
                    f"{own[0]} and prediction_length {own[1]}, not {asked[0]} and {asked[1]}: "
                    f"leave the lengths out, or train for them with `{run} --holdout-days "
                    f"{asked[0]} --prediction-length {asked[1]}`"
                )
        return replace(self, families=tuple(there))

    def summaries(self) -> list[str]:
        """What is told of comparisons; the guide's files are of what was decided."""
        return ["comparison_summary", "regression_report"]

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for an unknown family."""
        for name in self.families:
            family(name)

    def run_config(self) -> dict[str, Any]:
        """Dagster's run configuration of `compare_stock`."""
        config: dict[str, Any] = {"families": list(self.families), "seed": self.seed}
        config |= {"force": True} if self.force else {}
        return {"ops": {"comparison": {"config": config}}, "loggers": QUIET}


@dataclass(frozen=True)
class Refine:
    """The next rungs of a stock's ladder, then the comparison and the decision again.

    families: model families. rungs: how many of each family, as far as there are any left.
    """

    families: tuple[str, ...]
    rungs: int = 1
    searched: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """Ladder, comparison, decision."""
        return REFINE_STOCK

    def assets(self) -> list[str]:
        """One ladder a family, then what follows from it."""
        return [*(refined_name(name) for name in self.families), "comparison", "champion"]

    def on(self, store: ModelStore, month: str, symbol: str) -> Refine:
        """Those families of which the stock has an adapter; all of them if it has none."""
        return replace(self, families=trained(self.families, store, month, symbol))

    def summaries(self) -> list[str]:
        """All but the chosen parameters, which a rung leaves alone."""
        return DECIDED

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for an unknown family."""
        for name in self.families:
            family(name)

    def run_config(self) -> dict[str, Any]:
        """Dagster's run configuration of `refine_stock`."""
        ops = {refined_name(name): {"config": {"rungs": self.rungs}} for name in self.families}
        return {"ops": ops, "loggers": QUIET}


@dataclass(frozen=True)
class Promote:
    """A decision on what is in production, or the return to an earlier one.

    rules: thresholds by name. rollback_to: month whose decision is put back.
    """

    rules: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    rollback_to: str | None = None
    searched: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """The decision alone."""
        return PROMOTE_STOCK

    def assets(self) -> list[str]:
        """The champion."""
        return ["champion"]

    def on(self, store: ModelStore, month: str, symbol: str) -> Promote:
        """The same for every stock."""
        return self

    def summaries(self) -> list[str]:
        """What follows from a decision."""
        return ["regression_report", "guide_files"]

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for a rule that is unknown or out of range."""
        from retrain_assets.defs.champion import read_rules

        read_rules(self.rules)

    def run_config(self) -> dict[str, Any]:
        """Dagster's run configuration of `promote_stock`."""
        config: dict[str, Any] = {"rules": dict(self.rules), "seed": self.seed}
        if self.rollback_to is not None:
            config["rollback_to"] = self.rollback_to
        return {"ops": {"champion": {"config": config}}, "loggers": QUIET}


@dataclass(frozen=True)
class Confirm:
    """A look at a suspicion on a longer window of sessions.

    sessions: at the end of the month, forecast by the holdout's length one after the other.
    """

    sessions: int
    searched: tuple[str, ...] = ()

    @property
    def job(self) -> str:
        """The look alone."""
        return CONFIRM_STOCK

    def assets(self) -> list[str]:
        """The look."""
        return ["confirmation"]

    def on(self, store: ModelStore, month: str, symbol: str) -> Confirm:
        """The same for every stock."""
        return self

    def summaries(self) -> list[str]:
        """The report, which shows what was found."""
        return ["regression_report"]

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for a window that is none."""
        if self.sessions < 1:
            raise BadInput(f"holdout_days is {self.sessions}: give at least 1")

    def run_config(self) -> dict[str, Any]:
        """Dagster's run configuration of `confirm_stock`."""
        ops = {"confirmation": {"config": {"holdout_days": self.sessions}}}
        return {"ops": ops, "loggers": QUIET}
