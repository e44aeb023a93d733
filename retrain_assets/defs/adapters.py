"""Third stage: one asset per model family that trains a stock's adapter."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.device import Device
from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.learning import learning_shown
from retrain_assets.defs.partitions import month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Bars, Models
from retrain_assets.defs.reuse import Recipe, Reuse, code_version, force_field
from retrain_assets.defs.tracking import TrackedRun, Tracking, partition_tags
from retrain_assets.defs.training_log import epoch_reporter, result, system_metrics, tell_plan
from retrain_assets.errors import BadInput, OutOfMemory
from retrain_assets.evaluation.asset_names import adapter_name
from retrain_assets.models.forecaster import ModelFamily, families
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from pathlib import Path

    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.adapters import AdapterTraining
    from retrain_assets.training.policy import PlanOverrides


class AdapterConfig(dg.Config):
    """How one adapter is trained, where it departs from the policy and the universe file."""

    base: str | None = Field(
        None,
        description="Base model, or `published` for the published one that suits the device; by "
        "default that of universe.yaml, else the bundled one.",
    )
    epochs_scale: float = Field(1.0, gt=0, description="Factor on the policy's epochs.")
    context_length: int | None = Field(
        None, ge=128, description="Bars to look back on, in place of the policy's."
    )
    max_steps: int | None = Field(None, ge=1, description="Most optimizer steps to take.")
    seed: int = Field(0, ge=0, description="Seed of initialisation, order and dropout.")
    warm_start: bool = Field(
        False, description="Start from the previous month's adapter, if there is one."
    )
    force: bool = force_field()


def require_same_bars(adapter: "AdapterRecord", view: PartitionBars) -> None:
    """Raise BadInput for an adapter that was trained on other bars than are at hand."""
    if adapter.bars_hash != view.hash:
        raise BadInput(
            f"the {adapter.family} adapter of {adapter.symbol} {adapter.month} was trained on "
            f"other bars: materialize {adapter_name(adapter.family)} again"
        )


def build_adapter(family: ModelFamily) -> dg.AssetsDefinition:
    """The asset that trains adapters of one family."""

    @dg.asset(
        name=adapter_name(family.name),
        description=(
            f"A LoRA adapter of {family.title} for one stock, trained on bars before the "
            "validation segment and stopped early on it.\n\nThe folder in the model store holds "
            "the weights, the plan, the split with its dates and the losses. A run that was "
            "interrupted goes on from its last epoch."
        ),
        partitions_def=month_stock,
        group_name="training",
        kinds={"pytorch", "mlflow"},
        owners=OWNERS,
        pool=GPU,
        code_version=code_version(__file__),
    )
    def adapter(
        context: dg.AssetExecutionContext,
        config: AdapterConfig,
        market_bars: PartitionBars,
        baseline_metrics: dict[str, Any],
        bars: Bars,
        models: Models,
        device: Device,
        tracking: Tracking,
        reuse: Reuse,
    ) -> dg.Output[dict[str, Any]]:
        with failing_plainly():
            overrides = bars.stock(market_bars.symbol).overrides
            base = bars.base(family, config.base, device.kind)
            own = {
                "base": [base, family.base_digest(base, checkpoints=models.bases)],
                "overrides": dataclasses.asdict(overrides),
                "threads": device.threads,
            }
            recipe = _recipe(
                context, config, family, market_bars, baseline_metrics, models, reuse, own
            )
        if (before := recipe.before()) is not None:
            return before
        with failing_plainly(), device.lease() as where:
            given = (base, config, market_bars, baseline_metrics, overrides, models, where)
            record, run = _trained(
                context,
                lambda context_length: _prepared(family, *given, context_length),
                lambda training: _tracked(context, tracking, training, device.threads),
                models,
                force=config.force,
            )
            hardware = device.describe(where)
        return recipe.output(
            record.to_json(),
            data_version=dg.DataVersion(record.digest),
            metadata=_metadata(record, run, models) | {"device": str(hardware)},
        )

    return adapter


def adapters() -> list[dg.AssetsDefinition]:
    """One training asset per model family there is."""
    return [build_adapter(family) for family in families().values()]


def _recipe(
    context: dg.AssetExecutionContext,
    config: AdapterConfig,
    family: ModelFamily,
    view: PartitionBars,
    baseline: dict[str, Any],
    models: Models,
    reuse: Reuse,
    own: dict[str, Any],
) -> Recipe:
    """All that an adapter depends on; own: base, overrides and threads."""
    from retrain_assets.training.adapter_store import LATEST_FILE, AdapterRecord

    store = models.store()
    latest = store.partition_folder(family.name, view.month, view.symbol) / LATEST_FILE
    earlier = store.previous(family.name, view.month, view.symbol) if config.warm_start else None

    def files(record: dict[str, Any]) -> "list[Path]":
        folder = store.path(AdapterRecord.from_json(record))
        return [latest, *(file for file in folder.rglob("*") if file.is_file())]

    return reuse.recipe(
        context,
        config,
        files=files,
        bars=view.hash,
        baseline=baseline,
        warm_start=earlier and earlier.digest,
        **own,
    )


def _trained(
    context: dg.AssetExecutionContext,
    prepared: "Callable[[int | None], AdapterTraining]",
    tracked: "Callable[[AdapterTraining], contextlib.AbstractContextManager[TrackedRun]]",
    models: Models,
    *,
    force: bool,
) -> "tuple[AdapterRecord, TrackedRun]":
    """Train an adapter; where not one window fits into memory, with half the context, and so on.

    prepared: makes it ready, with a context in bars or with the plan's. tracked: opens its run.
    """
    from retrain_assets.training.splits import halved_context

    shorter: int | None = None
    while True:
        training = prepared(shorter)
        try:
            with tracked(training) as run:
                with system_metrics(run):
                    record = training.train(
                        report=epoch_reporter(context, run, str(training.model.device)),
                        notes={"mlflow_run": run.id},
                        force=force,
                    ).record
                run.log_metrics([(record.metrics["best_epoch"], result(record))])
                run.log_folder(models.store().path(record))
            return record, run
        except OutOfMemory as error:
            shorter = halved_context(training.split.context, training.model.limits)
            if shorter is None:
                raise
            tell(context, f"{error}. Tried with a context of {shorter} bars now")
        del training  # and the base with it: a second one need not fit beside it


def _prepared(
    family: ModelFamily,
    base: str,
    config: AdapterConfig,
    view: PartitionBars,
    baseline: dict[str, Any],
    overrides: "PlanOverrides",
    models: Models,
    device: str,
    context_length: int | None,
) -> "AdapterTraining":
    """Baseline to plan to split to a training that is ready to start.

    context_length: in bars, in place of the plan's that did not fit into memory.
    """
    from retrain_assets.training import adapters as library
    from retrain_assets.training import policy
    from retrain_assets.training.splits import make_split

    if baseline["bars_hash"] != view.hash:
        raise BadInput(
            f"baseline_metrics of {view.symbol} {view.month} was computed on other bars: "
            "materialize it again"
        )
    count = len(view.bars)
    limits = family.limits(base, checkpoints=models.bases)
    if config.context_length is not None:
        overrides = dataclasses.replace(overrides, context_length=config.context_length)
    if baseline["horizon"] != policy.prediction_length(count, overrides):
        overrides = dataclasses.replace(overrides, prediction_length=baseline["horizon"])
    plan = policy.plan(
        count,
        baseline["baseline_mae_pct"],
        family.name,
        limits,
        overrides,
        epochs_scale=config.epochs_scale,
    )
    if context_length is not None:
        note = f"context {plan.context} -> {context_length}: a longer one did not fit into memory"
        plan = dataclasses.replace(plan, context=context_length, notes=(*plan.notes, note))
    split = make_split(
        count,
        context=plan.context,
        horizon=plan.horizon,
        holdout_days=baseline["holdout_days"],
        limits=limits,
    )
    store = models.store()
    earlier = store.previous(family.name, view.month, view.symbol) if config.warm_start else None
    if earlier and (reason := library.hindsight(earlier, view.bars, split)):
        plan = dataclasses.replace(plan, notes=(*plan.notes, f"no warm start: {reason}"))
        earlier = None
    return library.prepare(
        family_name=family.name,
        base=base,
        symbol=view.symbol,
        month=view.month,
        bars=view.bars,
        plan=plan,
        split=split,
        seed=config.seed,
        store=store,
        checkpoints=models.bases,
        device=device,
        max_steps=config.max_steps,
        warm_start=earlier,
    )


@contextlib.contextmanager
def _tracked(
    context: dg.AssetExecutionContext,
    tracking: Tracking,
    training: "AdapterTraining",
    threads: int,
) -> Iterator[TrackedRun]:
    """An MLflow run with the plan as parameters; an interrupted training's run goes on."""
    family, key = training.model.family, str(context.partition_key)
    tags = partition_tags(context) | {
        "base": training.model.base,
        "device": str(training.model.device),
        "threads": str(threads),
    }
    resume = training.interrupted_notes().get("mlflow_run")
    with tracking.run(family, key, tags=tags, resume=resume) as run:
        run.link(context, family)
        plan = {f"plan.{name}": value for name, value in training.plan.to_json().items()}
        split = {f"split.{name}": value for name, value in training.split.to_json().items()}
        run.log_params(plan | split | {"seed": training.seed, "max_steps": training.max_steps})
        tell_plan(context, training)
        yield run


def _metadata(record: "AdapterRecord", run: TrackedRun, models: Models) -> dict[str, Any]:
    """What the page of one partition shows."""
    plan, split, metrics = record.plan, record.split, record.metrics
    return {
        **learning_shown(record),
        "mlflow": run.shown(),
        "folder": dg.MetadataValue.path(models.store().path(record)),
        "validation loss": metrics["validation_loss"],
        "validation loss of the base": metrics["base_validation_loss"],
        "epochs": metrics["epochs"],
        "best epoch": metrics["best_epoch"],
        "steps": metrics["steps"],
        "stopped": metrics["stopped"],
        "seconds": metrics["measured"]["seconds"],
        "difficulty": plan["difficulty"],
        "rank": plan["rank"],
        "loss": plan["loss"],
        "context": split["context"],
        "notes": dg.MetadataValue.json([*plan["notes"], *split["notes"]]),
        "plan": dg.MetadataValue.json(plan),
        "dates": dg.MetadataValue.json(record.split_dates),
    }
