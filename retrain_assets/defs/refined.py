"""Beside the third stage: rungs of the ladder for a stock that does not do well, one asset each."""

import dataclasses
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.adapters import require_same_bars
from retrain_assets.defs.device import Device
from retrain_assets.defs.io import OPTIONAL, PartitionBars
from retrain_assets.defs.legible import legible
from retrain_assets.defs.partitions import month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Models
from retrain_assets.defs.tracking import TrackedRun, Tracking, flat_numbers, partition_tags
from retrain_assets.defs.training_log import epoch_reporter, system_metrics, tell_plan
from retrain_assets.errors import BadInput, TrainingFailed
from retrain_assets.evaluation.asset_names import adapter_name, params_name, refined_name
from retrain_assets.models.forecaster import ModelFamily, families, family
from retrain_assets.operation import GPU, OWNERS
from retrain_assets.training.ladder import next_rung, on_rung, stopped

if TYPE_CHECKING:
    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.evaluation.refinement import Refinement, TriedRung
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.ladder import Rung
    from retrain_assets.training.policy import TrainingPlan


class RefinementConfig(dg.Config):
    """How far the ladder is climbed in one run."""

    rungs: int = Field(1, ge=1, le=16, description="Rungs to run, as far as there are any left.")


def build_refined(family: ModelFamily) -> dg.AssetsDefinition:
    """The asset that climbs the ladder of one family."""

    @dg.asset(
        name=refined_name(family.name),
        description=(
            f"The ladder of {family.title} for a stock that does not do well: rank, loss, epochs, "
            "learning rate and dropout, one change a rung, each trained anew and searched like the "
            "month's own adapter.\n\nOnly run when asked for, by `retrain refine` or the sensor. "
            "Materializing it again goes on with the next rung. It ends by itself when the last "
            "rungs gained nothing. The best rung takes part in the next comparison, and everything "
            "that was tried counts in the test that decides on promotion."
        ),
        partitions_def=month_stock,
        group_name="training",
        kinds={"pytorch", "mlflow"},
        owners=OWNERS,
        pool=GPU,
        ins={  # what is missing is told in words of ours, below
            "market_bars": dg.AssetIn(metadata=OPTIONAL),
            "adapter": dg.AssetIn(adapter_name(family.name), metadata=OPTIONAL),
            "params": dg.AssetIn(params_name(family.name), metadata=OPTIONAL),
        },
    )
    def refined(
        context: dg.AssetExecutionContext,
        config: RefinementConfig,
        market_bars: PartitionBars | None,
        adapter: dict[str, Any] | None,
        params: dict[str, Any] | None,
        models: Models,
        device: Device,
        tracking: Tracking,
    ) -> dg.Output[dict[str, Any]]:
        with failing_plainly():
            start = _begun(context, market_bars, adapter, params)
            ladder = models.ladder(start.policy) or start.ladder
            for _ in range(config.rungs):
                rung = next_rung(start.plan, ladder.done)
                if rung is None:
                    break
                with device.lease() as where:
                    ladder = ladder.climbed(_climb(context, rung, start, models, where, tracking))
                models.write_ladder(start.policy, ladder)  # a rung is kept as soon as it is done
            ladder = dataclasses.replace(ladder, stopped=stopped(start.plan, ladder.done))
            models.write_ladder(start.policy, ladder)
        tell(context, _in_words(ladder), 1.0)
        return dg.Output(ladder.to_json(), metadata=legible(_metadata(ladder)))

    return refined


def refinements() -> list[dg.AssetsDefinition]:
    """One ladder per model family there is."""
    return [build_refined(family) for family in families().values()]


@dataclasses.dataclass(frozen=True)
class _Start:
    """Where a ladder begins: the bars, the month's own adapter, and its search."""

    view: PartitionBars
    policy: "AdapterRecord"
    search: "ParamsRecord"

    @property
    def plan(self) -> "TrainingPlan":
        from retrain_assets.training.policy import TrainingPlan

        return TrainingPlan.from_json(self.policy.plan)

    @property
    def ladder(self) -> "Refinement":
        """No rung of it climbed."""
        from retrain_assets.evaluation.refinement import Refinement

        return Refinement(self.policy.digest, float(self.search.summary["selection_mae"]))


def _begun(
    context: dg.AssetExecutionContext,
    view: PartitionBars | None,
    adapter: dict[str, Any] | None,
    params: dict[str, Any] | None,
) -> _Start:
    """Where the ladder begins; raises BadInput, saying what to run, if that is not there."""
    from retrain_assets.evaluation.contenders import same_origins
    from retrain_assets.evaluation.params import ParamsRecord, checked
    from retrain_assets.training.adapter_store import AdapterRecord

    month, symbol = month_and_symbol(context.partition_key)
    if view is None or adapter is None or params is None:
        raise BadInput(
            f"a ladder begins with an adapter and its search, and {symbol} {month} lacks them: "
            f"`retrain run --stocks {symbol} --month {month}`"
        )
    policy, search = AdapterRecord.from_json(adapter), ParamsRecord.from_json(params)
    checked(search, policy, options=search.options)
    same_origins(search, policy)
    require_same_bars(policy, view)
    return _Start(view, policy, search)


def _climb(
    context: dg.AssetExecutionContext,
    rung: "Rung",
    start: _Start,
    models: Models,
    device: str,
    tracking: Tracking,
) -> "TriedRung":
    """Train a rung's adapter and search its parameters, as the month's own were.

    A rung that cannot be trained, as one that diverges, is a try that failed; the ladder goes on.
    """
    from retrain_assets.evaluation.refinement import TriedRung

    name = refined_name(start.policy.family)
    tags = partition_tags(context) | {
        "rung": rung.name,
        "base": start.policy.base,
        "device": device,
    }
    key = f"{context.partition_key} {rung.name}"
    try:
        with tracking.run(name, key, tags=tags) as run:
            tell(context, f"{rung.name}: {rung.reason}")
            adapter = _trained(context, rung, start, models, device, run)
            search = _searched(context, adapter, start, models, device)
            run.log_metrics([(0, flat_numbers(search.summary))])
            run.log_folder(models.store().path(adapter))
    except TrainingFailed as error:
        context.log.warning(f"{rung.name} failed: {error}")
        return TriedRung(rung.name, rung.reason, error=str(error))
    return TriedRung(rung.name, rung.reason, adapter, search)


def _trained(
    context: dg.AssetExecutionContext,
    rung: "Rung",
    start: _Start,
    models: Models,
    device: str,
    run: TrackedRun,
) -> "AdapterRecord":
    from retrain_assets.training import adapters as library
    from retrain_assets.training.splits import Split

    policy, plan = start.policy, on_rung(start.plan, rung)
    steps = policy.metrics.get("max_steps")
    training = library.prepare(
        family_name=policy.family,
        base=policy.base,
        symbol=policy.symbol,
        month=policy.month,
        bars=start.view.bars,
        plan=plan,
        split=Split.from_json(policy.split),
        seed=policy.seed,
        store=models.store(),
        checkpoints=models.bases,
        device=device,
        # The same bound on the steps would undo a rung that trains longer.
        max_steps=steps and steps * plan.epochs // start.plan.epochs,
        rung=rung.name,
    )
    run.log_params({f"plan.{name}": value for name, value in plan.to_json().items()})
    tell_plan(context, training)
    report = epoch_reporter(context, run, device)
    with system_metrics(run):
        return training.train(report=report, notes={"mlflow_run": run.id}).record


def _searched(
    context: dg.AssetExecutionContext,
    adapter: "AdapterRecord",
    start: _Start,
    models: Models,
    device: str,
) -> "ParamsRecord":
    """A search on the terms of the month's own, with a rung's adapter."""
    from retrain_assets.evaluation.params import (
        read_search,
        same_terms,
        search_adapter,
        write_search,
    )
    from retrain_assets.training.adapters import load_adapted
    from retrain_assets.training.splits import Split

    own, known = family(adapter.family), start.search
    _, table, _ = read_search(models.searches(start.policy) / known.folder)
    settings, racing = same_terms(known, table)
    model = load_adapted(adapter, store=models.store(), checkpoints=models.bases, device=device)
    found, result = search_adapter(
        adapter,
        Split.from_json(known.split),
        start.view.bars,
        own.forecaster(model, name=own.name, options=known.options),
        settings,
        default=own.default_settings,
        seed=known.seed,
        racing=racing,
        threads=known.threads,
        device=device,
        options=known.options,
        report=lambda line: tell(context, line, minor=True),
    )
    write_search(models.searches(adapter), found, result)
    return found


def _in_words(ladder: "Refinement") -> str:
    best = ladder.best
    if best is None:
        return f"no rung was run: {ladder.stopped}"
    loss = best.selection_loss or 0.0
    gain = 100 * (1 - loss / ladder.policy_loss) if ladder.policy_loss else 0.0
    end = f"; over: {ladder.stopped}" if ladder.stopped else ""
    return f"{len(ladder.rungs)} rungs, best {best.name}: {gain:+.1f} % less selection error{end}"


def _metadata(ladder: "Refinement") -> dict[str, Any]:
    rows = [
        dg.TableRecord({"rung": done.name, "selection error": done.selection_loss})
        for done in ladder.done
    ]
    return {
        "rungs": dg.MetadataValue.table(rows),
        "best": ladder.best.name if ladder.best else "policy",
        "stopped": ladder.stopped or "another rung is left",
    }
