"""From a stock's bars to a stored adapter, and from a stored adapter to a model.

An adapter folder holds PEFT's two files, plan.json, split.json, metrics.json and record.json. It
is written to a temporary sibling and renamed, under a name derived from everything that
determines its content, so the same inputs give the same folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from retrain_assets import __version__
from retrain_assets.errors import BadInput, CheckpointError, RetrainError
from retrain_assets.evaluation.splits import Split
from retrain_assets.files import atomic_folder, checked_symbol, read_json, write_json
from retrain_assets.market.calendar import month_before
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import LoadedModel, family
from retrain_assets.training.checkpoints import TrainingCheckpoint
from retrain_assets.training.policy import TrainingPlan
from retrain_assets.training.trainer import FitConfig, FitResult, Progress, fit

if TYPE_CHECKING:
    from torch import Tensor

_MONTH_LENGTH = len("2025-09")


@dataclass(frozen=True)
class AdapterRecord:
    """What is known of a stored adapter; small enough to travel through the asset graph.

    folder: relative to the model store. digest: of the adapter's weights. fingerprint: of the
    base it belongs on. plan, split: as JSON. metrics: losses and counts of the fit; what was
    measured by the clock stands apart under "measured". versions: of the libraries.
    """

    family: str
    base: str
    symbol: str
    month: str
    folder: str
    digest: str
    fingerprint: str
    bars_hash: str
    seed: int
    plan: dict[str, Any]
    split: dict[str, Any]
    split_dates: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AdapterRecord:
        """The record from its JSON; raises BadInput naming a field that is missing."""
        missing = [f.name for f in fields(cls) if f.name not in value]
        if missing:
            raise BadInput(f"the adapter's record lacks {', '.join(missing)}: retrain it")
        return cls(**{f.name: value[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class ModelStore:
    """The folder tree of adapters: family / month / symbol / one folder per content."""

    root: Path

    def partition_folder(self, family_name: str, month: str, symbol: str) -> Path:
        """Where one partition's adapters lie; the names are checked before they become a path."""
        if len(month) != _MONTH_LENGTH or not month.replace("-", "").isdigit():
            raise BadInput(f"{month!r} is no month: write it as 2025-09")
        return self.root / family(family_name).name / month / checked_symbol(symbol)

    def latest(self, family_name: str, month: str, symbol: str) -> AdapterRecord | None:
        """The adapter last written for a partition, None if there is none."""
        pointer = self.partition_folder(family_name, month, symbol) / "latest.json"
        if not pointer.exists():
            return None
        return AdapterRecord.from_json(read_json(pointer))

    def previous(self, family_name: str, month: str, symbol: str) -> AdapterRecord | None:
        """The adapter last written for the month before, None if there is none."""
        return self.latest(family_name, month_before(month), symbol)

    def path(self, record: AdapterRecord) -> Path:
        """The folder of an adapter; raises CheckpointError if it is gone or leaves the store."""
        folder = (self.root / record.folder).resolve()
        if not folder.is_relative_to(self.root.resolve()):
            raise CheckpointError(f"{record.folder} lies outside the model store {self.root}")
        if not folder.is_dir():
            raise CheckpointError(
                f"the adapter folder {folder} is gone: retrain {record.symbol} {record.month}"
            )
        return folder


@dataclass(frozen=True)
class AdapterTraining:
    """One adapter about to be trained: inputs checked, base loaded, nothing computed yet.

    Made by `prepare`. identity: digest of all that determines the adapter. rung: of the ladder, if
    it is a refinement: then the month's own adapter stays the latest.
    """

    model: LoadedModel
    bars: pd.DataFrame
    bars_hash: str
    symbol: str
    month: str
    plan: TrainingPlan
    split: Split
    seed: int
    max_steps: int | None
    warm_start: AdapterRecord | None
    store: ModelStore
    identity: str
    rung: str | None = None

    @property
    def folder(self) -> Path:
        """Where the adapter will lie."""
        parent = self.store.partition_folder(self.model.family, self.month, self.symbol)
        return parent / self.identity[:16]

    def _checkpoint(self, notes: dict[str, Any]) -> TrainingCheckpoint:
        working = self.folder.with_name(f".{self.folder.name}.training")
        return TrainingCheckpoint(working, self.identity, notes)

    def interrupted_notes(self) -> dict[str, Any]:
        """The notes of an interrupted fit of this very adapter, empty if there is none."""
        return self._checkpoint({}).stored_notes()

    def train(
        self, *, report: Callable[[Progress], None], notes: dict[str, Any] | None = None
    ) -> AdapterRecord:
        """Fit the adapter, or finish an interrupted fit, and store it.

        report: called as the fit goes on. notes: JSON values to keep in the checkpoints.
        Raises RetrainError if training diverges or the disk does not take the result; then
        nothing half-written is left.
        """
        checkpoint = self._checkpoint(notes or {})
        started = time.perf_counter()
        result = self._fit(checkpoint, report)
        weights = lora.adapter_weights(self.model.module)
        record = self._record(result, weights, time.perf_counter() - started)
        try:
            self._write(record, weights)
        except _write_errors() as error:
            raise _unwritable(self.folder, error) from error
        checkpoint.remove()
        return record

    def _fit(self, checkpoint: TrainingCheckpoint, report: Callable[[Progress], None]) -> FitResult:
        plan, own = self.plan, family(self.model.family)
        targets = own.lora_targets(self.model)
        settings = lora.LoraSettings(plan.rank, plan.alpha, plan.dropout, targets)
        self.model.module = lora.attach(self.model.module, settings, seed=self.seed)
        if self.warm_start is not None:
            earlier = lora.read_weights(self.store.path(self.warm_start))
            lora.set_adapter_weights(
                self.model.module, lora.warm_weights(earlier, self.model.module)
            )
        task = own.training_task(
            self.model,
            # What lies after the validation segment is not even handed over.
            self.bars.iloc[: self.split.validation.stop],
            train=self.split.train_windows(),
            validation=self.split.validation_windows(),
            loss=plan.loss,
        )
        config = FitConfig(
            epochs=plan.epochs,
            effective_batch=plan.effective_batch,
            learning_rate=plan.learning_rate,
            seed=self.seed,
            patience=plan.patience,
            max_steps=self.max_steps,
        )
        try:
            return fit(self.model.module, task, config, checkpoint=checkpoint, report=report)
        except _write_errors() as error:
            raise _unwritable(checkpoint.folder, error) from error

    def _record(
        self, result: FitResult, weights: dict[str, Tensor], seconds: float
    ) -> AdapterRecord:
        return AdapterRecord(
            family=self.model.family,
            base=self.model.base,
            symbol=self.symbol,
            month=self.month,
            folder=str(self.folder.relative_to(self.store.root)),
            digest=weights_digest(weights),
            fingerprint=self.model.fingerprint,
            bars_hash=self.bars_hash,
            seed=self.seed,
            plan=self.plan.to_json(),
            split=self.split.to_json(),
            split_dates=self.split.dates(pd.DatetimeIndex(self.bars["session"])),
            metrics=_metrics(result, self.split, weights, seconds)
            | {
                "warm_start": self.warm_start.folder if self.warm_start else None,
                "max_steps": self.max_steps,
                "rung": self.rung,
            },
            versions=library_versions(),
        )

    def _write(self, record: AdapterRecord, weights: dict[str, Tensor]) -> None:
        with atomic_folder(self.folder) as partial:
            form = self.model.base_weights
            lora.save(self.model.module, weights, partial, base_weights=form)
            write_json(partial / "plan.json", record.plan)
            write_json(partial / "split.json", record.split | {"dates": record.split_dates})
            write_json(partial / "metrics.json", record.metrics)
            write_json(partial / "record.json", record.to_json())
        if self.rung is None:
            write_json(self.folder.parent / "latest.json", record.to_json())


def prepare(
    *,
    family_name: str,
    base: str,
    symbol: str,
    month: str,
    bars: pd.DataFrame,
    plan: TrainingPlan,
    split: Split,
    seed: int,
    store: ModelStore,
    checkpoints: Path,
    device: str,
    max_steps: int | None = None,
    warm_start: AdapterRecord | None = None,
    rung: str | None = None,
) -> AdapterTraining:
    """Check the inputs of a training run and load its base, before any work is done.

    bars: the symbol's bars up to the partition's cut, as many as the split counts. max_steps:
    bound on optimizer steps beside the plan's epochs. warm_start: an earlier adapter of the
    same base to start from. rung: name of the ladder's rung that made the plan, if one did.
    Raises BadInput or CheckpointError.
    """
    import torch

    from retrain_assets.market.bars import content_hash

    if len(bars) != split.n_bars:
        raise BadInput(f"{symbol} has {len(bars)} bars, its split was made for {split.n_bars}")
    if max_steps is not None and max_steps < 1:
        raise BadInput(f"max_steps is {max_steps}: give at least 1, or leave it out")
    store.partition_folder(family_name, month, symbol)
    model = family(family_name).load(base, checkpoints=checkpoints, device=device)
    if warm_start is not None and warm_start.fingerprint != model.fingerprint:
        raise CheckpointError(
            f"the adapter of {warm_start.month} was trained on another base "
            f"({warm_start.base}): turn warm_start off, or use that base"
        )
    if warm_start is not None and (reason := hindsight(warm_start, bars, split)):
        raise BadInput(f"{reason}: turn warm_start off")
    bars_hash = content_hash(bars)
    determines = {
        "family": family_name,
        "fingerprint": model.fingerprint,
        "symbol": symbol,
        "month": month,
        "bars": bars_hash,
        "plan": plan.to_json(),
        "split": split.to_json(),
        "seed": seed,
        "max_steps": max_steps,
        "warm_start": warm_start.digest if warm_start else None,
        "versions": library_versions(),
        # Sums on the CPU are split among the threads, so another number may round otherwise.
        "threads": torch.get_num_threads(),
    }
    text = json.dumps(determines, sort_keys=True)
    return AdapterTraining(
        model=model,
        bars=bars,
        bars_hash=bars_hash,
        symbol=symbol,
        month=month,
        plan=plan,
        split=split,
        seed=seed,
        max_steps=max_steps,
        warm_start=warm_start,
        store=store,
        identity=hashlib.sha256(text.encode()).hexdigest(),
        rung=rung,
    )


def hindsight(earlier: AdapterRecord, bars: pd.DataFrame, split: Split) -> str | None:
    """Why an earlier adapter must not be started from: it has seen bars that `split` judges on.

    None if it has not. It happens where two months were split differently, for instance when a
    short history grew by another selection origin.
    """
    judged = split.dates(pd.DatetimeIndex(bars["session"]))["selection"]["first"]
    fitted = earlier.split_dates["validation"]["last"]
    if fitted < judged:
        return None
    return (
        f"the adapter of {earlier.month} was trained and stopped on bars up to {fitted}, and this "
        f"one is to be judged on those from {judged}"
    )


def load_adapted(
    record: AdapterRecord, *, store: ModelStore, checkpoints: Path, device: str
) -> LoadedModel:
    """The base a record names with its adapter on it, frozen, in evaluation mode.

    Raises CheckpointError if the base is not the one the adapter was trained on, or if the
    stored weights are not those the record was written for.
    """
    folder = store.path(record)
    model = family(record.family).load(record.base, checkpoints=checkpoints, device=device)
    if model.fingerprint != record.fingerprint:
        raise CheckpointError(
            f"the adapter in {folder} was trained on the base with fingerprint "
            f"{record.fingerprint[:12]}, but {record.base} now has {model.fingerprint[:12]}: "
            "restore that base, or retrain the adapter"
        )
    model.module = lora.load(model.module, folder, base_weights=model.base_weights)
    found = weights_digest(lora.adapter_weights(model.module))
    if found != record.digest:
        raise CheckpointError(
            f"the weights in {folder} have digest {found[:12]}, the record says "
            f"{record.digest[:12]}: the files were changed; retrain the adapter"
        )
    model.adapter = found
    return model


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers, stored with every result."""
    names = ("torch", "peft", "numpy", "pandas", "safetensors")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version(), "retrain_assets": __version__}


def _metrics(
    result: FitResult, split: Split, weights: Mapping[str, Tensor], seconds: float
) -> dict[str, Any]:
    state = result.state
    return {
        "stopped": result.stopped,
        "epochs": state.epoch,
        "steps": state.step,
        "best_epoch": state.best_epoch,
        "validation_loss": state.best_loss,
        "base_validation_loss": state.validations[0]["loss"],
        "validations": state.validations,
        "step_losses": state.steps,
        "micro_batch": state.micro_batch,
        "training_windows": len(split.train_windows().targets()),
        "trainable_parameters": sum(value.numel() for value in weights.values()),
        "measured": {"seconds": seconds, "resumed_at_epoch": result.resumed_at_epoch},
    }


def _write_errors() -> tuple[type[Exception], ...]:
    """What a full disk raises: Python's own error, or the one of the tensor library."""
    from safetensors import SafetensorError

    return (OSError, SafetensorError)


def _unwritable(folder: Path, error: Exception) -> RetrainError:
    reason = error.strerror if isinstance(error, OSError) else error
    return RetrainError(
        f"cannot write {folder}: {reason}. Free space there, or point "
        "RETRAIN_HOME elsewhere, and run again: training goes on from its last checkpoint"
    )
