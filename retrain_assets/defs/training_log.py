"""What a training says while it runs: to the run's log and to MLflow, in the order of the work.

First the plan and the dates of its segments; then a line an epoch with losses, pace, the time that
is left at most, and memory; meanwhile MLflow's own monitor logs how busy the machine is.
"""

import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd
from rich.filesize import decimal

from retrain_assets.defs.progress import tell
from retrain_assets.defs.tracking import TrackedRun

if TYPE_CHECKING:
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.adapters import AdapterTraining
    from retrain_assets.training.trainer import Progress

_MONITOR = "mlflow.system_metrics"


def tell_plan(context: dg.AssetExecutionContext, training: "AdapterTraining") -> None:
    """Write to the run's log what is going to be trained, on which dates, and what was capped."""
    plan, split = training.plan, training.split
    context.log.info(
        f"plan: {plan.difficulty} (naive error {plan.baseline_mae_pct:.2f} %), LoRA rank "
        f"{plan.rank}, {plan.loss} loss, learning rate {plan.learning_rate:g}, at most "
        f"{plan.epochs} epochs, {split.context} bars to look back on, {split.horizon} to forecast"
    )
    dates = split.dates(pd.DatetimeIndex(training.bars["session"]))
    segments = (f"{name} {days['first']} to {days['last']}" for name, days in dates.items())
    context.log.info("split: " + ", ".join(segments))
    for note in dict.fromkeys((*plan.notes, *split.notes)):
        context.log.info(note)


def epoch_reporter(
    context: dg.AssetExecutionContext, run: TrackedRun, device: str
) -> "Callable[[Progress], None]":
    """A callback that writes each epoch to the log and to MLflow, and shows what is between.

    device: torch's name of where it is trained, whose memory is told.
    """
    begun: list[Progress] = []

    def report(now: "Progress") -> None:
        if not begun:  # a fit that goes on where another was killed begins at a later step
            begun.append(now)
        done = now.step / now.steps if now.steps else None
        line = f"epoch {now.epoch}/{now.epochs}, step {now.step}/{now.steps}"
        if now.message is not None:
            tell(context, now.message, done)
            return
        if now.validation_loss is None:
            tell(context, f"{line}, loss {now.train_loss:.4f}", done, minor=True)
            return
        losses = {"loss": now.train_loss, "validation_loss": now.validation_loss}
        told = "".join(f", {n} {v:.4f}" for n, v in losses.items())
        more = f"{_pace(begun[0], now)}, {_memory(device)}"
        tell(context, line + told, done, more=more)
        steps = [(step, _prefixed("train", values)) for step, values in now.step_losses]
        epoch = {"validation.loss": now.validation_loss, "learning_rate": now.learning_rate}
        run.log_metrics([*steps, (now.step, epoch)])

    return report


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def result(record: "AdapterRecord") -> dict[str, float]:
    """What came out of a training, as MLflow's metrics."""
    names = ("validation_loss", "base_validation_loss", "best_epoch", "steps")
    return _prefixed("result", {name: float(record.metrics[name]) for name in names})


@contextlib.contextmanager
def system_metrics(run: TrackedRun) -> Iterator[None]:
    """Log `system/...` to a run while the block lasts, as MLflow does: every ten seconds.

    Of the processor, memory, disk, network and, where there are any, cards. A run that MLflow
    knows nothing of goes without, and so does one from the moment that MLflow is away.
    """
    if run.away:
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    # It would say on every training that it begins, that there is no card, and that it ends.
    logging.getLogger(_MONITOR).setLevel(logging.ERROR)
    monitor = SystemMetricsMonitor(run.id, resume_logging=True, tracking_uri=run.uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def _pace(begun: "Progress", now: "Progress") -> str:
    """Steps a second since `begun`, and the time that the steps to come take at most."""
    seconds = now.seconds - begun.seconds
    if now.step <= begun.step or seconds <= 0:
        return ""
    rate = (now.step - begun.step) / seconds
    left = dt.timedelta(seconds=round((now.steps - now.step) / rate))
    return f", {rate:.3g} steps/s, {left} left at most"


def _memory(device: str) -> str:
    """The most that was taken of a card so far, or what this process has of the machine now."""
    if device.startswith("cuda"):
        import torch

        return f"{decimal(torch.cuda.max_memory_allocated(device))} of the card's memory"
    import psutil

    return f"{decimal(psutil.Process().memory_info().rss)} of memory"
