"""Running the asset graph from this process: which month, which stocks, and what came of it.

The runs are executed here but recorded in the instance, so the web pages show them like any
other. One stock is one run; what fails in one never stops another.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from retrain_assets.definitions import SUMMARISE_MONTH
from retrain_assets.defs.failures import SILENT, failure_reason, root_error, step_owner
from retrain_assets.defs.partitions import partition_key, register_stocks
from retrain_assets.defs.requests import WORK_TAG
from retrain_assets.defs.resources import Models
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.asset_names import params_name
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets.files import is_month
from retrain_assets.home import Home
from retrain_assets.launcher import process_tag
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import families, family
from retrain_assets.universe import Universe
from retrain_assets.work import QUIET, Work

ALL = "both"
"""Asked for as a model type: every family there is."""


@dataclass(frozen=True)
class Outcome:
    """What came of one stock. run_id: of Dagster's run, empty if none was begun.

    record: its comparison. champion: the decisions taken. confirmation: the look on a longer
    window. params: record of the search by family.
    error: why what they need failed, and with it the stock. search_errors: why a search failed, by
    family. begun: whether it was run at all; one that was refused leaves all results as they are.
    """

    symbol: str
    run_id: str
    record: StockRecord | None = None
    champion: Mapping[str, Any] | None = None
    confirmation: Mapping[str, Any] | None = None
    params: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    search_errors: Mapping[str, str] = field(default_factory=dict)
    begun: bool = True

    @property
    def failures(self) -> list[str]:
        """Every reason to say that it failed; empty if nothing did."""
        alone = [f"{params_name(name)}: {why}" for name, why in self.search_errors.items()]
        return [self.error, *alone] if self.error else alone


def chosen_families(model_type: str) -> tuple[str, ...]:
    """The families that `--model-type` names: one of them, or `both` for all there are."""
    return tuple(families()) if model_type == ALL else (family(model_type).name,)


def checked_month(text: str, universe: Universe, *, today: dt.date | None = None) -> str:
    """Return a month that is a partition; raises BadInput saying what is wrong with it."""
    now = f"{today or dt.datetime.now(dt.UTC).date():%Y-%m}"
    if not is_month(text):
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
    from retrain_assets.market.calendar import last_final_month

    found = []
    for symbol in symbols:
        sessions = pd.DatetimeIndex(store.read(symbol)["session"])
        calendar = universe.stock(symbol, stored=[symbol]).calendar
        found.append(last_final_month(sessions, calendar, symbol=symbol))
    return max(found)


def run_stocks(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    symbols: Sequence[str],
    month: str,
    work: Work,
) -> Iterator[Outcome]:
    """Run one stock after the other and yield what came of each; Ctrl-C ends them all."""
    register_stocks(instance, symbols)
    job = defs.resolve_job_def(work.job)
    resources = defs.resources or {}
    models: Models = resources["models"]
    home = resources["reports"].place()
    for symbol in symbols:
        try:
            asked = work.on(models.store(), month, symbol)
        except RetrainError as error:  # refused before anything ran
            yield Outcome(symbol, "", error=str(error), begun=False)
            continue
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition_key(month, symbol),
            run_config=asked.run_config(),
            asset_selection=[dg.AssetKey(name) for name in asked.assets()],
            tags=_tags() | {WORK_TAG: work_digest(home, month, symbol, work)},
            raise_on_error=False,
        )
        if _interrupted(result):
            raise KeyboardInterrupt
        yield _outcome(symbol, result, asked)


def _outcome(symbol: str, result: dg.ExecuteInProcessResult, work: Work) -> Outcome:
    why = why_failed(result, work.assets())
    done = {name for name in work.assets() if result.is_node_success(name) and name not in why}
    searches = {name: params_name(name) for name in work.searched}
    others = [reason for name, reason in why.items() if name not in searches.values()]
    return Outcome(
        symbol,
        result.run_id,
        record=result.output_for_node("comparison") if "comparison" in done else None,
        champion=result.output_for_node("champion") if "champion" in done else None,
        confirmation=result.output_for_node("confirmation") if "confirmation" in done else None,
        params={n: result.output_for_node(asset) for n, asset in searches.items() if asset in done},
        error=others[0] if others else None,
        search_errors={n: why[asset] for n, asset in searches.items() if asset in why},
    )


def summarise(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    month: str,
    outcomes: Iterable[Outcome],
    work: Work,
) -> list[Path]:
    """Write the month's summary files and return them.

    outcomes: of the stocks that ran; those that failed are listed. Raises BadInput with the
    reason when a summary itself fails; the others are written all the same.
    """
    config: dict[str, dict[str, Any]] = {
        "comparison_summary": {
            "failed": {o.symbol: o.error for o in outcomes if o.error and o.begun}
        },
        "params_summary": {
            "failed": {name: _not_searched(outcomes, name) for name in work.searched}
        },
    }
    names = [*work.summaries(), "month_report"]
    return materialize(defs, instance, month, names, config)


def materialize(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    month: str,
    names: Sequence[str],
    config: Mapping[str, Mapping[str, Any]],
) -> list[Path]:
    """Make some of a month's summaries and return their files.

    config: by name, of those that take any. Raises BadInput with the reason when one fails.
    """
    result = defs.resolve_job_def(SUMMARISE_MONTH).execute_in_process(
        instance=instance,
        partition_key=month,
        run_config={
            "ops": {name: {"config": config[name]} for name in names if name in config},
            "loggers": QUIET,
        },
        asset_selection=[dg.AssetKey(name) for name in names],
        tags=_tags(),
        raise_on_error=False,
    )
    if _interrupted(result):
        raise KeyboardInterrupt
    for why in why_failed(result, names).values():
        raise BadInput(f"the summary of {month} was not written: {why}")
    return [Path(file) for name in names for file in result.output_for_node(name).values()]


def work_digest(home: Home, month: str, symbol: str, work: Work) -> str:
    """Digest of what a run is asked for and of what it works with: bars and library versions.

    Of the bars those up to the month's end count.
    """
    from retrain_assets.market.bars import content_hash
    from retrain_assets.training.adapter_store import library_versions

    seen = BarStore(home.market).read(symbol, until=pd.Period(month, freq="M").end_time)
    asked = {
        "assets": work.assets(),
        "config": work.run_config(),
        "bars": content_hash(seen),
        "versions": library_versions(),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _not_searched(outcomes: Iterable[Outcome], family_name: str) -> dict[str, str]:
    """Why stocks have no parameters of a family, by symbol."""
    missing = [outcome for outcome in outcomes if family_name not in outcome.params]
    reasons = {o.symbol: o.search_errors.get(family_name) or o.error for o in missing}
    return _given(reasons)


def why_failed(result: dg.ExecuteInProcessResult, assets: Iterable[str]) -> dict[str, str]:
    """Why each asset failed, in the words of whoever raised it; a check fails its asset."""
    why: dict[str, str] = {}
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR:
            told = f"check {check.check_name}: {check.description}"
            why.setdefault(check.asset_key.to_user_string(), told)
    for event in result.get_step_failure_events():
        step = step_owner(str(event.step_key), assets)
        why.setdefault(step, failure_reason(event.step_failure_data))
    return why if why or result.success else {"": SILENT}


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C ended the run: Dagster records it as a failure of the step."""
    failures = [event.step_failure_data for event in result.get_step_failure_events()]
    names = {root_error(failure.error).cls_name for failure in failures if failure.error}
    return "DagsterExecutionInterruptedError" in names


def _tags() -> dict[str, str]:
    """Tags of a run in this process: whoever gave the command repeats it, the daemon does not."""
    return process_tag() | {"dagster/max_retries": "0"}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
