"""What can be asked of a stock: to be retrained and compared, or to have its parameters searched.

Each kind knows the job that does it, which of the job's assets it wants, and the run
configuration that its fields come down to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from retrain_assets.definitions import RETRAIN_STOCK, SEARCH_PARAMS
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.home import Home
from retrain_assets.models.forecaster import SearchSpace, base_for, family, written

if TYPE_CHECKING:
    from retrain_assets.training.adapter_store import ModelStore

QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}
"""Dagster's own console log is left out: progress is shown instead."""


class Work(Protocol):
    """What is asked of every stock: a job, with how it departs from its defaults."""

    @property
    def job(self) -> str:
        """Name of the job."""
        ...

    @property
    def searched(self) -> tuple[str, ...]:
        """Families whose inference parameters are searched."""
        ...

    def assets(self) -> list[str]:
        """Names of one stock's assets in the order they run."""
        ...

    def on(self, store: ModelStore, month: str, symbol: str) -> Work:
        """What it comes down to for one stock, given the adapters that are stored.

        Raises RetrainError where that is nothing: the stock fails and no run is begun.
        """
        ...

    def summaries(self) -> list[str]:
        """Names of the month's assets that say what came of it, beside its report."""
        ...

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for what every stock would fail on."""
        ...

    def run_config(self) -> dict[str, Any]:
        """The job's run configuration."""
        ...


@dataclass(frozen=True)
class Search:
    """How inference parameters are searched; None and empty leave it to adapter and family.

    grid: values to try by setting, in place of the family's. subset: settings to draw from it.
    exhaustive: drop no setting early. options: ways to compute; a family takes those it knows.
    holdout_days, prediction_length: other than those of the adapter's split.
    """

    grid: SearchSpace = field(default_factory=dict)
    subset: int | None = None
    exhaustive: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    holdout_days: int | None = None
    prediction_length: int | None = None

    def check(self, names: Sequence[str]) -> None:
        """Raise BadInput for a setting in the grid that none of these families has, or a value
        that is out of its range, before any work that were in vain.
        """
        from retrain_assets.evaluation.search import expand

        known = {setting for name in names for setting in _searchable(name)}
        for setting in self.grid:
            if setting not in known:
                raise BadInput(
                    f"there is no setting {setting!r} to search: use {', '.join(sorted(known))}"
                )
        for name in names:
            space, default = self.space(name), dict(family(name).default_settings)
            expand(space, subset=1)  # that each setting has values, each of them once
            # Every value by itself: of a large space, drawn from, the whole is never laid out.
            for setting, values in space.items():
                for value in values:
                    family(name).check_settings(default | {setting: value})

    def config(self, name: str, seed: int) -> dict[str, Any]:
        """Configuration of one family's search; it takes those settings of the grid it has."""
        return _given(
            {
                "space": {key: list(values) for key, values in self._own(name).items()},
                "subset": self.subset,
                "exhaustive": self.exhaustive,
                "options": self._own_options(name),
                "holdout_days": self.holdout_days,
                "prediction_length": self.prediction_length,
                "seed": seed,
            }
        )

    def space(self, name: str) -> SearchSpace:
        """The values that are tried with a family."""
        return {**family(name).search_space, **self._own(name)}

    def _own(self, name: str) -> SearchSpace:
        known = _searchable(name)
        return {key: values for key, values in self.grid.items() if key in known}

    def _own_options(self, name: str) -> dict[str, str]:
        return {key: v for key, v in self.options.items() if key in family(name).options}

    def told(self) -> str:
        """What of it departs from the families' own way, for a caption."""
        grid = [f"{key} {'/'.join(map(_written, values))}" for key, values in self.grid.items()]
        parts = [f"grid {', '.join(grid)}"] if grid else []
        parts += [f"{self.subset} settings at random"] if self.subset else []
        parts += ["exhaustive"] if self.exhaustive else []
        parts += [f"{key} {value}" for key, value in self.options.items()]
        return "; ".join(parts)


@dataclass(frozen=True)
class Retrain:
    """How a retraining departs from the policy and the universe file; None leaves it to them.

    families: model families to train and compare. bases: base by family, where not that of the
        universe file. epochs_scale: factor on the policy's epochs.
    context_length: bars to look back on. max_steps: most optimizer steps of one adapter.
    search: of inference parameters; None leaves it out. live: whether what is decided may go into
        production. force: compute also what is stored and unchanged.
    """

    families: tuple[str, ...]
    holdout_days: int = 7
    prediction_length: int | None = None
    bases: Mapping[str, str] = field(default_factory=dict)
    context_length: int | None = None
    max_steps: int | None = None
    epochs_scale: float = 1.0
    seed: int = 0
    warm_start: bool = False
    search: Search | None = Search()
    live: bool = True
    force: bool = False

    @property
    def job(self) -> str:
        """Everything from bars to what is promoted."""
        return RETRAIN_STOCK

    @property
    def searched(self) -> tuple[str, ...]:
        """All families, or none."""
        return self.families if self.search else ()

    def assets(self) -> list[str]:
        """Names of one stock's assets in the order they run."""
        adapters = [adapter_name(name) for name in self.families]
        searches = [params_name(name) for name in self.searched]
        decided = ["comparison", "champion", "live_performance"]
        return ["market_bars", "baseline_metrics", *adapters, *searches, *decided]

    def on(self, store: ModelStore, month: str, symbol: str) -> Retrain:
        """The same for every stock: what is needed is trained."""
        return self

    def summaries(self) -> list[str]:
        """All; parameters of an adapter that has been replaced are said to be so."""
        return ["comparison_summary", "params_summary", "regression_report", "guide_files"]

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for an unknown family or base, and for a grid that cannot be searched."""
        for name in self.families:
            base = self._base(name, home, device)
            family(name).limits(base, checkpoints=home.checkpoints)
        if not self.epochs_scale > 0:
            raise BadInput(f"epochs scale is {self.epochs_scale}: give a number above 0")
        if self.search and self.search.grid:
            self.search.check(self.families)

    def _base(self, name: str, home: Home, device: str) -> str:
        """The base that a family's asset will take, for `auto` on the device there is."""
        from retrain_assets import cards
        from retrain_assets.universe import Universe

        # Torch is not asked: that would open CUDA before a card is leased.
        where = "cuda" if device == "auto" and cards.usable() else device
        asked = self.bases.get(name) or Universe.load(home.universe).bases.get(name)
        return base_for(family(name), asked, device=where)

    def run_config(self) -> dict[str, Any]:
        """The options as Dagster's run configuration of `retrain_stock`."""
        adapter = {
            "epochs_scale": self.epochs_scale,
            "context_length": self.context_length,
            "max_steps": self.max_steps,
            "seed": self.seed,
            "warm_start": self.warm_start,
        }
        baseline = {
            "holdout_days": self.holdout_days,
            "prediction_length": self.prediction_length,
        }
        ops: dict[str, Any] = {
            "baseline_metrics": {"config": _given(baseline)},
            "comparison": {"config": {"families": list(self.families), "seed": self.seed}},
            "champion": {"config": {"live": self.live, "seed": self.seed}},
        }
        for name in self.families:
            config = {"base": self.bases.get(name), **adapter}
            ops[adapter_name(name)] = {"config": _given(config)}
        if self.search:
            ops |= _searches(self.families, self.search, self.seed)
        computed = [*map(adapter_name, self.families), *map(params_name, self.searched)]
        ops |= _forced(ops, [*computed, "comparison", "live_performance"] if self.force else [])
        return {"ops": ops, "loggers": QUIET}


@dataclass(frozen=True)
class Validation:
    """A search of inference parameters for adapters that are stored already.

    families: model families. all_of_them: whether a stock needs an adapter of each; else those
        of which it has one are searched. force: search also what is stored and unchanged.
    """

    families: tuple[str, ...]
    search: Search = Search()
    seed: int = 0
    all_of_them: bool = False
    force: bool = False

    @property
    def job(self) -> str:
        """The search alone."""
        return SEARCH_PARAMS

    @property
    def searched(self) -> tuple[str, ...]:
        """All families."""
        return self.families

    def assets(self) -> list[str]:
        """One search a family."""
        return [params_name(name) for name in self.families]

    def on(self, store: ModelStore, month: str, symbol: str) -> Validation:
        """Those families of which the stock has an adapter; all of them if it has none."""
        if self.all_of_them:
            return self
        return replace(self, families=trained(self.families, store, month, symbol))

    def summaries(self) -> list[str]:
        """Of parameters alone: nothing is compared."""
        return ["params_summary"]

    def check(self, home: Home, device: str) -> None:
        """Raise BadInput for an unknown family or setting, and for a value out of range."""
        self.search.check(self.families)

    def run_config(self) -> dict[str, Any]:
        """Dagster's run configuration of `search_params`."""
        ops = _searches(self.families, self.search, self.seed)
        return {"ops": ops | _forced(ops, list(ops) if self.force else []), "loggers": QUIET}


def trained(names: tuple[str, ...], store: ModelStore, month: str, symbol: str) -> tuple[str, ...]:
    """Those families of which a stock has an adapter; all of them if it has none, to be told so."""
    return tuple(name for name in names if store.latest(name, month, symbol)) or names


def _searchable(name: str) -> set[str]:
    """Settings of a family: those searched by default, and those that have a default alone."""
    own = family(name)
    return {*own.search_space, *own.default_settings}


def _searches(names: Iterable[str], search: Search, seed: int) -> dict[str, Any]:
    return {params_name(name): {"config": search.config(name, seed)} for name in names}


def _forced(ops: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Configuration of these assets with which they compute in any case."""
    return {
        name: {"config": ops.get(name, {}).get("config", {}) | {"force": True}} for name in names
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _written(value: float | int | bool | None) -> str:
    return f"{value:g}" if isinstance(value, float) else written(value)
