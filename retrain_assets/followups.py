"""What can be asked of a stock after it was retrained: rungs of its ladder, a decision, a look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retrain_assets.definitions import CONFIRM_STOCK, PROMOTE_STOCK, REFINE_STOCK
from retrain_assets.defs.refinement import refined_name
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.models.forecaster import family
from retrain_assets.work import QUIET, trained

if TYPE_CHECKING:
    from retrain_assets.training.adapters import ModelStore

DECIDED = ["comparison_summary", "regression_report", "guide_files"]
"""The month's assets that change when a stock is compared and decided on again."""


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
        from retrain_assets.defs.promotion import read_rules

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
