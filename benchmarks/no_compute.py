"""Assets that compute nothing: what they would compute is played back.

Every asset, check, resource, record and MLflow call is that of the package; only the library's
own work is taken from a stock that was really run, in another data folder. Variables of the
environment say how: see `orchestration`, which starts servers on `no_compute_location`.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from retrain_assets.definitions import RETRAIN_STOCK, build_definitions
from retrain_assets.defs import adapters, champion, checks, comparison, device, params
from retrain_assets.defs.partitions import partition_key
from retrain_assets.files import read_json
from retrain_assets.home import Home

TEMPLATE_VARIABLE = "NO_COMPUTE_TEMPLATE"
"""Data folder of the stock that was really run."""
EXECUTOR_VARIABLE = "NO_COMPUTE_EXECUTOR"
"""`in_process`, which is ours, or `multiprocess`, which is Dagster's default."""
HEAVY_VARIABLE = "NO_COMPUTE_IMPORTS"
"""Modules to import where the library would load a model, separated by blanks."""
SYMBOL_VARIABLE = "NO_COMPUTE_SYMBOL"
"""The stock that was really run."""
MONTH = "2023-08"
SCHEDULED = "S"
"""First letter of the stocks that the schedule asks for."""


@dataclass(frozen=True)
class Training:
    """Stands in for a training: its result is the template's, under another symbol."""

    model: Any
    bars: pd.DataFrame
    plan: Any
    split: Any
    seed: int
    max_steps: int | None
    store: Any
    played: Any

    def interrupted_notes(self) -> dict[str, Any]:
        """None: nothing was interrupted."""
        return {}

    def train(self, *, report: Callable[[Any], None], **_: Any) -> Any:
        """Copy the template's folder; one epoch is reported."""
        from retrain_assets.training.trainer import Progress

        source = played().models / self.played.folder.replace(self.played.symbol, template())
        folder = self.store.root / self.played.folder
        shutil.copytree(source, folder, dirs_exist_ok=True)
        self.store.point_to(self.played)
        step = (1, {"loss": 1.0})
        report(Progress(1, 1, 1, 1, 1.0, 1.0, 1e-4, 0.1, (step,)))
        return Played(self.played)


@dataclass(frozen=True)
class Played:
    """What a training returns."""

    record: Any


@dataclass(frozen=True)
class Model:
    """Stands in for a loaded base."""

    family: str
    base: str
    device: str = "cpu"


def template() -> str:
    """The stock that was really run."""
    return os.environ[SYMBOL_VARIABLE]


def played() -> Home:
    """The template's data folder."""
    return Home(Path(os.environ[TEMPLATE_VARIABLE]))


def asset(name: str, symbol: str) -> dict[str, Any]:
    """What the template's asset returned, as if it were another stock's."""
    text = json.dumps(read_json(played().assets / name / MONTH / f"{template()}.json"))
    found: dict[str, Any] = json.loads(text.replace(template(), symbol))
    return found


def load() -> None:
    """Import what loading a model would."""
    for name in os.environ.get(HEAVY_VARIABLE, "").split():
        importlib.import_module(name)


def prepared(family: Any, base: str, config: Any, view: Any, *rest: Any) -> Training:
    """In place of a training that is ready to start."""
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.policy import TrainingPlan
    from retrain_assets.training.splits import Split

    load()
    record = AdapterRecord.from_json(asset(f"{family.name}_adapter", view.symbol))
    models = next(one for one in rest if hasattr(one, "bases"))
    return Training(
        model=Model(family.name, base),
        bars=view.bars,
        plan=TrainingPlan.from_json(record.plan),
        split=Split.from_json(record.split),
        seed=config.seed,
        max_steps=config.max_steps,
        store=models.store(),
        played=record,
    )


@dataclass(frozen=True)
class Task:
    """Stands in for a search that is ready to run."""

    family: Any
    config: Any
    adapter: Any
    split: Any
    device: str
    space: Mapping[str, Any]
    settings: list[Any]
    lines: int = 1

    def run(self, view: Any, **_: Any) -> tuple[Any, Any]:
        """The template's search."""
        from retrain_assets.evaluation.params import ParamsRecord, read_search
        from retrain_assets.evaluation.search import SearchResult

        record = ParamsRecord.from_json(asset(f"{self.family.name}_params", view.symbol))
        store = Path(str(self.adapter.folder).replace(view.symbol, template())).parent
        _, table, losses = read_search(played().models / store / "params" / record.folder)
        found = (record.chosen, record.default, record.summary, pd.DataFrame(), record.measured)
        return record, SearchResult(table, losses, *found)


def searching(family: Any, config: Any, adapter: Any, models: Any, where: str) -> Task:
    """In place of a search that is ready to start."""
    from retrain_assets.training.splits import Split

    load()
    split = Split.from_json(adapter.split)
    return Task(family, config, adapter, split, where, family.search_space, [{}])


@dataclass(frozen=True)
class Compared:
    """Stands in for a comparison: its table is the template's."""

    symbol: str

    @property
    def forecasts(self) -> pd.DataFrame:
        """Read anew, as it would be computed anew."""
        folder = played().results / "comparison_results" / MONTH
        return pd.read_parquet(folder / f"{template()}_forecasts.parquet")


def candidates(*_: Any) -> list[Any]:
    """In place of loaded models."""
    load()
    return []


def decided(occasion: Any, *_: Any) -> dict[str, Any]:
    """In place of a decision."""
    return asset("champion", occasion.symbol) | {"decided_at": occasion.decided_at}


def play(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Put all of that in the place of what computes; put: how an attribute is set."""
    from retrain_assets.evaluation import baseline
    from retrain_assets.training import adapters as training

    put(adapters, "_prepared", prepared)
    put(training, "load_adapted", lambda *_, **__: load())
    put(checks, "_repeated", lambda *_: 0.0)
    put(params, "_prepared", searching)
    put(comparison, "_candidates", candidates)
    put(comparison, "_compared", lambda _, view, *__: Compared(view.symbol))
    put(comparison, "_record", lambda compared, *_: asset("comparison", compared.symbol))
    put(champion, "decided", decided)
    put(baseline, "baseline_metrics", lambda *_, **__: _figures())
    put(device, "_use_threads", lambda _: None)


def _figures() -> dict[str, Any]:
    asked = ("n_bars", "bars_hash", "holdout_days", "horizon")
    known = read_json(played().assets / "baseline_metrics" / MONTH / f"{template()}.json")
    return {name: value for name, value in known.items() if name not in asked}


def build() -> dg.Definitions:
    """The package's definitions, with a schedule that asks for some of the stocks once."""
    own = build_definitions(Home.find(), device="cpu")
    (job,) = [job for job in own.jobs or [] if job.name == RETRAIN_STOCK]

    @dg.schedule(name="ask", job=job, cron_schedule="* * * * *")
    def ask(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
        stocks = [s for s in context.instance.get_dynamic_partitions("stock") if s[0] == SCHEDULED]
        keys = [partition_key(MONTH, symbol) for symbol in stocks]
        return [dg.RunRequest(run_key=key, partition_key=key) for key in keys]

    chosen = {"in_process": dg.in_process_executor, "multiprocess": dg.multiprocess_executor}
    return dg.Definitions(
        assets=own.assets,
        asset_checks=own.asset_checks,
        resources=own.resources,
        jobs=[job],
        schedules=[ask],
        executor=chosen[os.environ[EXECUTOR_VARIABLE]],
    )
