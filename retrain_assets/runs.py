"""Running the asset graph from this process: which month, which stocks, and what came of it.

The runs are executed here but recorded in the instance, so the web pages show them like any
other. One stock is one run; what fails in one never stops another.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.definitions import RETRAIN_STOCK, SUMMARISE_MONTH
from retrain_assets.defs.adapters import adapter_name
from retrain_assets.defs.partitions import partition_key, register_stocks
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.report import StockRecord
from retrain_assets.home import Home
from retrain_assets.launcher import process_tag
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import families, family
from retrain_assets.universe import Universe

if TYPE_CHECKING:
    from dagster._core.execution.plan.objects import StepFailureData
    from dagster_shared.error import SerializableErrorInfo

_QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


@dataclass(frozen=True)
class Options:
    """How a run departs from the policy and the universe file; None leaves the choice to them.

    families: model families to train and compare. epochs_scale: factor on the policy's epochs.
    context_length: bars to look back on. max_steps: most optimizer steps of one adapter.
    """

    families: tuple[str, ...]
    holdout_days: int = 7
    prediction_length: int | None = None
    base: str | None = None
    context_length: int | None = None
    max_steps: int | None = None
    epochs_scale: float = 1.0
    seed: int = 0
    warm_start: bool = False

    def check(self, home: Home) -> None:
        """Raise BadInput for what every stock would fail on: an unknown family or base."""
        for name in self.families:
            chosen = family(name)
            chosen.limits(self.base or chosen.default_base, checkpoints=home.checkpoints)
        if not self.epochs_scale > 0:
            raise BadInput(f"epochs scale is {self.epochs_scale}: give a number above 0")

    def run_config(self) -> dict[str, Any]:
        """The options as Dagster's run configuration of `retrain_stock`."""
        adapter = {
            "base": self.base,
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
        }
        ops |= {adapter_name(name): {"config": _given(adapter)} for name in self.families}
        return {"ops": ops, "loggers": _QUIET}


@dataclass(frozen=True)
class Outcome:
    """What came of one stock: its comparison, or the reason why there is none."""

    symbol: str
    run_id: str
    record: StockRecord | None = None
    error: str | None = None


def asset_order(options: Options) -> list[str]:
    """Names of one stock's assets in the order they run."""
    adapters = [adapter_name(name) for name in options.families]
    return ["market_bars", "baseline_metrics", *adapters, "comparison"]


def chosen_families(model_type: str) -> tuple[str, ...]:
    """The families that `--model-type` names: one of them, or `both` for all there are."""
    return tuple(families()) if model_type == "both" else (family(model_type).name,)


def checked_month(text: str, universe: Universe, *, today: dt.date | None = None) -> str:
    """Return a month that is a partition; raises BadInput saying what is wrong with it."""
    now = f"{today or dt.datetime.now(dt.UTC).date():%Y-%m}"
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text):
        raise BadInput(f"month {text!r} is malformed: write it as YYYY-MM, such as 2023-08")
    if text > now:
        raise BadInput(
            f"month {text} lies in the future: the latest that can be asked for is {now}"
        )
    if text < universe.first_month:
        raise BadInput(
            f"month {text} lies before {universe.first_month}: choose a later one, or set "
            "first_month in universe.yaml"
        )
    return text


def last_complete_month(store: BarStore, universe: Universe, symbols: Iterable[str]) -> str:
    """The latest month whose last session is stored for at least one of the symbols."""
    import pandas as pd

    from retrain_assets.market.calendar import month_cut

    found = []
    for symbol in symbols:
        sessions = pd.DatetimeIndex(store.read(symbol)["session"])
        last = f"{sessions[-1]:%Y-%m}"
        calendar = universe.stock(symbol, stored=[symbol]).calendar
        cut = month_cut(last, sessions, calendar, symbol=symbol)
        found.append(str(pd.Period(last, freq="M") - 1) if cut.provisional else last)
    return max(found)


def run_stocks(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    symbols: Sequence[str],
    month: str,
    options: Options,
) -> Iterator[Outcome]:
    """Run one stock after the other and yield what came of each; Ctrl-C ends them all."""
    register_stocks(instance, symbols)
    job = defs.resolve_job_def(RETRAIN_STOCK)
    left_out = {adapter_name(name) for name in set(families()) - set(options.families)}
    keys = [key for key in job.asset_layer.selected_asset_keys if key.path[-1] not in left_out]
    for symbol in symbols:
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key(month, symbol),
            run_config=options.run_config(),
            asset_selection=keys if left_out else None,
            tags=_tags(),
            raise_on_error=False,
        )
        if _interrupted(result):
            raise KeyboardInterrupt
        if result.success:
            record = result.output_for_node("comparison")
            yield Outcome(symbol, result.run_id, record=record)
        else:
            yield Outcome(symbol, result.run_id, error=why_failed(result))


def summarise(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    month: str,
    failed: Mapping[str, str],
) -> list[Path]:
    """Write the month's summary files and return them.

    failed: reason by stock, for those that have no comparison. Raises BadInput with the
    reason when the summary itself fails.
    """
    result = defs.resolve_job_def(SUMMARISE_MONTH).execute_in_process(
        instance=instance,
        partition_key=month,
        run_config={
            "ops": {"comparison_summary": {"config": {"failed": dict(failed)}}},
            "loggers": _QUIET,
        },
        tags=_tags(),
        raise_on_error=False,
    )
    if not result.success:
        raise BadInput(f"the summary of {month} was not written: {why_failed(result)}")
    return [Path(file) for file in result.output_for_node("comparison_summary").values()]


def why_failed(result: dg.ExecuteInProcessResult) -> str:
    """The first failure of a run in the words of whoever raised it."""
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            return f"check {check.check_name}: {check.description}"
    for failure in _failures(result):
        if failure.user_failure_data and failure.user_failure_data.description:
            return str(failure.user_failure_data.description)
        if failure.error:
            return _root(failure.error).message.strip()
    return "the run ended without saying why: look at its page"


def _failures(result: dg.ExecuteInProcessResult) -> list[StepFailureData]:
    return [event.step_failure_data for event in result.all_events if event.is_step_failure]


def _root(error: SerializableErrorInfo) -> SerializableErrorInfo:
    return _root(error.cause) if error.cause else error


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C ended the run: Dagster records it as a failure of the step."""
    names = {_root(f.error).cls_name for f in _failures(result) if f.error}
    return "DagsterExecutionInterruptedError" in names


def _tags() -> dict[str, str]:
    """Tags of a run in this process: whoever gave the command repeats it, the daemon does not."""
    return process_tag() | {"dagster/max_retries": "0"}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
