"""From a stock's bars to a stored adapter, and from a stored adapter to a model.

An adapter folder holds PEFT's two files, plan.json, split.json, metrics.json and record.json. It
is written to a temporary sibling and renamed, under a name derived from everything that
determines its content, so the same inputs give the same folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.files import atomic_folder, sweep, turn, write_json
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import LoadedModel, family
from retrain_assets.models.memory import WINDOW, fitting
from retrain_assets.training.adapter_store import (
    AdapterRecord,
    ModelStore,
    library_versions,
    made_by,
    parts,
    whole_record,
)
from retrain_assets.training.policy import TrainingPlan
from retrain_assets.training.resuming import TrainingCheckpoint
from retrain_assets.training.splits import Split
from retrain_assets.training.trainer import FitConfig, FitResult, Progress, fit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Trained:
    """What came of a training. reused: the adapter was stored already, and nothing was trained."""

    record: AdapterRecord
    reused: bool


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

    def finished(self) -> AdapterRecord | None:
        """This very adapter, if it is stored already and whole, its weights included."""
        return self._stored()[0]

    def train(
        self,
        *,
        report: Callable[[Progress], None],
        notes: dict[str, Any] | None = None,
        force: bool = False,
    ) -> Trained:
        """Fit the adapter, or finish an interrupted fit, and store it.

        One that is stored already and whole is taken as it is. While another process trains this
        very adapter, this one waits, and then takes that.

        report: called as the fit goes on, and with messages. notes: JSON values to keep in the
        checkpoints. force: train also what is stored already. Raises TrainingFailed if training
        diverges or does not fit into memory, and CannotWrite if the disk does not take the result;
        then nothing half-written is left.
        """

        def say(message: str) -> None:
            report(Progress(0, self.plan.epochs, 0, 0, math.nan, None, 0.0, 0.0, message=message))

        checkpoint = self._checkpoint(notes or {})
        with self._turn(say):
            found, damage = self._stored()
            if damage:
                say(f"{damage}: it is trained anew")
            reused = found is not None and not force
            if found and reused:
                say(f"{self.folder} is complete already: nothing to train")
                record = found
            else:
                record = self._trained(checkpoint, report)
            self._point_to(record)
            checkpoint.remove()
        return Trained(record, reused)

    @contextlib.contextmanager
    def _turn(self, say: Callable[[str], None]) -> Iterator[None]:
        """Be the only one at this adapter; whoever died at it has left nothing then."""
        parent = self.folder.parent
        name = "-".join([*parent.relative_to(self.store.root).parts, self.folder.name])
        lock = self.store.root / ".locks" / f"{name}.lock"
        with turn(lock, waiting=lambda: say("another process is at this very adapter: waiting")):
            parent.mkdir(parents=True, exist_ok=True)
            sweep(parent)
            yield

    def _stored(self) -> tuple[AdapterRecord | None, str | None]:
        """This very adapter if it is stored and whole, and what is wrong with it if it is not."""
        if not self.folder.exists():
            return None, None
        try:
            record = AdapterRecord.from_json(whole_record(self.folder))
        except (BadInput, CheckpointError) as error:
            return None, str(error)
        known = (record.metrics.get("rung"), record.versions)
        # Of another rung, or made by other code: nothing is wrong with it, but it is not this one.
        return (record if known == (self.rung, made_by()) else None), None

    def _trained(
        self, checkpoint: TrainingCheckpoint, report: Callable[[Progress], None]
    ) -> AdapterRecord:
        started = time.perf_counter()
        result = self._fit(checkpoint, report)
        weights = lora.adapter_weights(self.model.module)
        record = self._record(result, weights, time.perf_counter() - started)
        with atomic_folder(self.folder) as partial:
            lora.save(self.model.module, weights, partial, base_weights=self.model.base_weights)
            for name, value in parts(record.to_json()).items():
                write_json(partial / name, value)
        return record

    def _point_to(self, record: AdapterRecord) -> None:
        """Make it the partition's latest, unless it is a rung's."""
        if self.rung is None:
            self.store.point_to(record)

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
        with fitting(WINDOW):
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
        return fit(self.model.module, task, config, checkpoint=checkpoint, report=report)

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
            versions=made_by(),
        )


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
    with fitting(f"base {base}"):
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
        "rollbacks": state.rollbacks,
        "learning_rate_factor": state.rate_factor,
        "training_windows": len(split.train_windows().targets()),
        "trainable_parameters": sum(value.numel() for value in weights.values()),
        "measured": {
            "seconds": seconds,
            "resumed_at_epoch": result.resumed_at_epoch,
            "damaged_checkpoints": list(result.damage),
        },
    }
