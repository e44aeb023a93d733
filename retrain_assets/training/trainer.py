"""The training loop: one module, one task, early stopping, exact resume.

It knows neither adapters nor model families and keeps no global state: the module, its data and
loss (a `TrainingTask`), the checkpoint folder and the progress callback are arguments. What it
trains is whatever the module marks as requiring gradients, so the same loop fits an adapter and
pretrains a small base.

A loss that is no number any more takes it back to the last good epoch, at half the learning rate.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingFailed
from retrain_assets.models.forecaster import TrainingTask
from retrain_assets.models.memory import WINDOW, fitting
from retrain_assets.training.resuming import StoredFit, TrainingCheckpoint
from retrain_assets.training.steps import (
    NotFinite,
    gradients,
    own_random_state,
    random_states,
    require_finite,
    schedule,
    set_random_states,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_ROLLBACKS = 2
"""How often a fit may go back to its last good epoch before it is given up."""
ROLLBACK_RATE = 0.5
"""Factor on the learning rate for every time it did."""


@dataclass(frozen=True)
class FitConfig:
    """What the loop needs of a plan.

    epochs: most passes over the training windows.
    effective_batch: windows per optimizer step.
    learning_rate: peak rate of AdamW, reached after `warmup` of all steps, then cosine decay.
    patience: epochs without a better validation loss before the loop stops.
    max_steps: bound on optimizer steps, None for none; the schedule is laid out for it.
    clip_norm: gradients are scaled down to this global norm.
    micro_batch: windows computed at once, None for all of a step; fewer where memory is short.
    """

    epochs: int
    effective_batch: int
    learning_rate: float
    seed: int
    patience: int = 5
    max_steps: int | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    micro_batch: int | None = None


@dataclass(frozen=True)
class Progress:
    """One report of a running fit; `validation_loss` is set at the end of an epoch only.

    step_losses: the losses of the steps since the last end of an epoch, (step, name -> value).
    message: something out of the ordinary, in words; then the rest only says where the fit stands.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float
    step_losses: tuple[tuple[int, dict[str, float]], ...] = ()
    message: str | None = None


@dataclass
class FitState:
    """Everything but the tensors that a resumed fit needs; stored as JSON in a checkpoint.

    steps: per optimizer step, its losses by name. validations: per epoch from 0 (before any
    step), its validation losses by name. rollbacks: times it went back to the last good epoch.
    """

    epoch: int = 0
    step: int = 0
    micro_batch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)
    rollbacks: int = 0

    @property
    def rate_factor(self) -> float:
        """What the learning rate has come down to, as a share of what was asked for."""
        return ROLLBACK_RATE**self.rollbacks

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """What a fit ended with: the best weights and how it came there.

    weights: trainable tensors by parameter name, of the epoch with the lowest validation loss
        (epoch 0 is the start: if nothing improved on it, the start is what comes back).
    stopped: "epochs", "max_steps" or "early" (patience ran out).
    resumed_at_epoch: the epoch an interrupted fit went on from, None if it began at the start.
    damage: checkpoints that could not be used, in words.
    """

    weights: dict[str, Tensor]
    state: FitState
    stopped: str
    resumed_at_epoch: int | None
    damage: tuple[str, ...] = ()


def fit(
    module: nn.Module,
    task: TrainingTask,
    config: FitConfig,
    *,
    checkpoint: TrainingCheckpoint | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> FitResult:
    """Minimise the task's loss over the trainable parameters of `module`; it ends at the best.

    With a checkpoint folder, the state after every epoch is written whole; a fit that finds
    one goes on from it and ends with the bit-identical weights on the CPU.

    Raises TrainingFailed when the loss stops being finite again and again, or is not to begin
    with; OutOfMemory when not one window fits into memory.
    """
    import torch

    with own_random_state(module):
        torch.manual_seed(config.seed)
        loop = _Loop(module, task, config, report)
        resumed_at, damage = loop.resume(checkpoint) if checkpoint else (None, [])
        if resumed_at is None:
            loop.begin()
        while (stopped := loop.stopped()) is None:
            try:
                loop.run_epoch()
            except NotFinite as error:
                loop.roll_back(error)
            loop.keep()
            if checkpoint:
                checkpoint.save(loop.good)
        loop.load_weights(loop.best)
    return FitResult(loop.best, loop.state, stopped, resumed_at, tuple(damage))


class _Loop:
    """The mutable middle of `fit`: optimizer, schedule position, best weights so far.

    good: where it stood at the end of the last epoch, or at the start.
    """

    good: StoredFit

    def __init__(
        self,
        module: nn.Module,
        task: TrainingTask,
        config: FitConfig,
        report: Callable[[Progress], None],
    ) -> None:
        import torch

        self.module, self.task, self.config, self.report = module, task, config, report
        self.parameters = dict(
            sorted((n, p) for n, p in module.named_parameters() if p.requires_grad)
        )
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.state = FitState(micro_batch=config.micro_batch or config.effective_batch)
        self.best = self.weights()
        self.steps_per_epoch = math.ceil(task.train_windows / config.effective_batch)
        planned = config.epochs * self.steps_per_epoch
        self.total_steps = min(planned, config.max_steps or planned)
        self.started = time.perf_counter()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the trainable tensors by name."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put a copy made by `weights` back."""
        import torch

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def begin(self) -> None:
        """Score the start; raises TrainingFailed if that is no number before any step is taken."""
        try:
            self.validate()
        except NotFinite as error:
            raise TrainingFailed(
                f"{error} before the first step: the base or the adapter it starts from is broken, "
                "or the bars hold extreme prices; look at the bars, or choose another base"
            ) from error
        self.keep()

    def stopped(self) -> str | None:
        """Why the fit is over, None while it is not."""
        state, config = self.state, self.config
        if config.max_steps is not None and state.step >= config.max_steps:
            return "max_steps"
        if state.epoch - state.best_epoch >= config.patience:
            return "early"
        return "epochs" if state.epoch >= config.epochs else None

    def run_epoch(self) -> None:
        """One pass over the training windows in an order drawn from (seed, epoch).

        Raises NotFinite when the loss is no number any more.
        """
        self.state.epoch += 1
        first = self.state.step
        order = np.random.default_rng([self.config.seed, self.state.epoch])
        rows = order.permutation(self.task.train_windows)
        every = max(1, self.total_steps // 20)
        for start in range(0, len(rows), self.config.effective_batch):
            if self.state.step >= self.total_steps:
                break
            batch = rows[start : start + self.config.effective_batch]
            self.state.steps.append(self._step(batch))
            self.state.step += 1
            if self.state.step % every == 0:
                self._report(None, first)
        self.validate()
        self._report(self.state.validations[-1]["loss"], first)

    def validate(self) -> None:
        """Score the validation windows and keep the weights if they are the best so far."""
        self.module.eval()
        with fitting(WINDOW):
            losses = self.task.validation(self.module)
        require_finite(losses, "validation loss")
        self.state.validations.append(losses)
        if losses["loss"] < self.state.best_loss:
            self.state.best_loss = losses["loss"]
            self.state.best_epoch = self.state.epoch
            self.best = self.weights()

    def _step(self, batch: NDArray[np.int64]) -> dict[str, float]:
        """One optimizer step; where memory is short, in smaller parts of the same batch."""
        import torch

        self.module.train()
        share = schedule(self.state.step, self.total_steps, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.state.rate_factor * share
        before = self.state.micro_batch
        with fitting(WINDOW):
            losses, self.state.micro_batch = gradients(self.module, self.task, batch, before)
            parameters = list(self.parameters.values())
            norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
            require_finite({"norm": float(norm)}, "gradient")
            self.optimizer.step()
        if self.state.micro_batch < before:
            self._say(
                f"the memory takes {self.state.micro_batch} of {before} windows at once: their "
                f"gradients are added up to the same {self.config.effective_batch} a step"
            )
        return losses

    def keep(self) -> None:
        """Remember where the fit stands: weights, best weights, moments, random state, counts."""
        moments = {
            f"{name}/{key}": value.detach().clone()
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        state = self.state.to_json()
        self.good = StoredFit(self.weights(), self.best, moments, random_states(self.module), state)

    def roll_back(self, error: NotFinite) -> None:
        """Go back to the last good epoch, at a lower rate; raises TrainingFailed if that was vain.

        What it went back for counts from there on, so that it is not forgotten by a resumed fit.
        """
        failed, step = self.state, self.state.step
        if failed.rollbacks == MOST_ROLLBACKS:
            raise TrainingFailed(
                f"{error} at step {step}, also at {failed.rate_factor:g} of the learning rate: "
                "lower the learning rate, or look for extreme prices in the bars"
            ) from error
        self._restore(self.good)
        self.state = replace(
            self.state, rollbacks=failed.rollbacks + 1, micro_batch=failed.micro_batch
        )
        self._say(
            f"{error} at step {step}: back to the end of epoch {self.state.epoch}, and on at "
            f"{self.state.rate_factor:g} of the learning rate"
        )

    def _say(self, message: str) -> None:
        self.report(replace(self._progress(math.nan), message=message))

    def _report(self, validation_loss: float | None, first: int) -> None:
        since = self.state.steps[first:]
        train_loss = float(np.mean([s["loss"] for s in since])) if since else math.nan
        numbered = tuple((first + i + 1, losses) for i, losses in enumerate(since))
        self.report(
            replace(
                self._progress(train_loss),
                validation_loss=validation_loss,
                step_losses=numbered if validation_loss is not None else (),
            )
        )

    def _progress(self, train_loss: float) -> Progress:
        return Progress(
            epoch=self.state.epoch,
            epochs=self.config.epochs,
            step=self.state.step,
            steps=self.total_steps,
            train_loss=train_loss,
            validation_loss=None,
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            seconds=time.perf_counter() - self.started,
        )

    def resume(self, checkpoint: TrainingCheckpoint) -> tuple[int | None, list[str]]:
        """Take up a stored fit; returns the epoch it had finished, and which files were damaged.

        The epoch is None where nothing is stored that is whole.
        """
        stored, damage = checkpoint.load()
        if stored is not None:
            self._restore(stored)
            self.good = stored
        if damage:
            epoch = self.state.epoch
            goes_on = f"goes on from epoch {epoch}" if stored else "starts anew"
            self._say(f"the last checkpoint is damaged ({'; '.join(damage)}): training {goes_on}")
        return (self.state.epoch if stored else None), damage

    def _restore(self, stored: StoredFit) -> None:
        self.load_weights(stored.weights)
        # On the device of the weights, and copies: the optimizer changes its moments in place.
        self.best = {n: stored.best[n].to(p.device) for n, p in self.parameters.items()}
        self.optimizer.state.clear()
        for name, parameter in self.parameters.items():
            prefix = f"{name}/"
            found = {
                key.removeprefix(prefix): value.clone()
                for key, value in stored.moments.items()
                if key.startswith(prefix)
            }
            if found:
                self.optimizer.state[parameter] = {
                    # AdamW keeps its step count on the CPU whatever the device of the weights.
                    key: value.to(parameter.device) if value.ndim else value.cpu()
                    for key, value in found.items()
                }
        set_random_states({n: t.cpu() for n, t in stored.random.items()}, self.module)
        self.state = FitState(**copy.deepcopy(stored.state))
