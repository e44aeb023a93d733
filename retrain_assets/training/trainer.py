"""The training loop: one module, one task, early stopping, exact resume.

It knows neither adapters nor model families and keeps no global state: the module, its data and
loss (a `TrainingTask`), the checkpoint folder and the progress callback are arguments. What it
trains is whatever the module marks as requiring gradients, so the same loop fits an adapter and
pretrains a small base.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import TrainingFailed
from retrain_assets.models.forecaster import TrainingTask

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from retrain_assets.training.checkpoints import TrainingCheckpoint

LOWEST_RATE = 0.1
"""Where the cosine decay ends, as a share of the peak learning rate."""


@dataclass(frozen=True)
class FitConfig:
    """What the loop needs of a plan.

    epochs: most passes over the training windows.
    effective_batch: windows per optimizer step.
    learning_rate: peak rate of AdamW, reached after `warmup` of all steps, then cosine decay.
    patience: epochs without a better validation loss before the loop stops.
    max_steps: bound on optimizer steps, None for none; the schedule is laid out for it.
    clip_norm: gradients are scaled down to this global norm.
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


@dataclass(frozen=True)
class Progress:
    """One report of a running fit; `validation_loss` is set at the end of an epoch only.

    step_losses: the losses of the steps since the last end of an epoch, (step, name -> value).
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
    step), its validation losses by name.
    """

    epoch: int = 0
    step: int = 0
    micro_batch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    steps: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class FitResult:
    """What a fit ended with: the best weights and how it came there.

    weights: trainable tensors by parameter name, of the epoch with the lowest validation loss
        (epoch 0 is the start: if nothing improved on it, the start is what comes back).
    stopped: "epochs", "max_steps" or "early" (patience ran out).
    """

    weights: dict[str, Tensor]
    state: FitState
    stopped: str
    resumed_at_epoch: int | None


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
    one goes on from it and ends with the bit-identical weights on the CPU. Raises RetrainError
    when the loss stops being finite.
    """
    import torch

    with _own_random_state(module):
        torch.manual_seed(config.seed)
        loop = _Loop(module, task, config, report)
        resumed_at = loop.resume(checkpoint) if checkpoint else None
        if resumed_at is None:
            loop.validate()
        stopped = "epochs"
        while loop.state.epoch < config.epochs:
            loop.run_epoch()
            if checkpoint:
                loop.save(checkpoint)
            if config.max_steps is not None and loop.state.step >= config.max_steps:
                stopped = "max_steps"
                break
            if loop.state.epoch - loop.state.best_epoch >= config.patience:
                stopped = "early"
                break
        loop.load_weights(loop.best)
    return FitResult(loop.best, loop.state, stopped, resumed_at)


@contextlib.contextmanager
def _own_random_state(module: nn.Module) -> Iterator[None]:
    """Give the caller its random state back afterwards, on the CPU and the module's device."""
    import torch

    devices = {p.device.index for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)):
        yield


class _Loop:
    """The mutable middle of `fit`: optimizer, schedule position, best weights so far."""

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
        self.state = FitState(micro_batch=config.effective_batch)
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

    def run_epoch(self) -> None:
        """One pass over the training windows in an order drawn from (seed, epoch)."""
        self.state.epoch += 1
        first = self.state.step
        order = np.random.default_rng([self.config.seed, self.state.epoch])
        rows = order.permutation(self.task.train_windows)
        every = max(1, self.total_steps // 20)
        for start in range(0, len(rows), self.config.effective_batch):
            if self.state.step >= self.total_steps:
                break
            batch = rows[start : start + self.config.effective_batch]
            self.state.steps.append(self._step_or_halve(batch))
            self.state.step += 1
            if self.state.step % every == 0:
                self._report(None, first)
        self.validate()
        self._report(self.state.validations[-1]["loss"], first)

    def validate(self) -> None:
        """Score the validation windows and keep the weights if they are the best so far."""
        self.module.eval()
        losses = self.task.validation(self.module)
        self._refuse_infinite(losses, "validation")
        self.state.validations.append(losses)
        if losses["loss"] < self.state.best_loss:
            self.state.best_loss = losses["loss"]
            self.state.best_epoch = self.state.epoch
            self.best = self.weights()

    def _step_or_halve(self, batch: NDArray[np.int64]) -> dict[str, float]:
        """One optimizer step; on out-of-memory the micro-batch halves and the step is redone."""
        import torch

        while True:
            random = _random_states(self.module)
            try:
                return self._step(batch)
            except torch.OutOfMemoryError as error:
                if self.state.micro_batch == 1:
                    raise TrainingFailed(
                        "one training window does not fit into the device's memory: "
                        "shorten context_length or choose a smaller base"
                    ) from error
            # The failed attempt drew dropout masks; the redone step must draw the same ones.
            _set_random_states(random, self.module)
            self.state.micro_batch //= 2
            torch.cuda.empty_cache()

    def _step(self, batch: NDArray[np.int64]) -> dict[str, float]:
        import torch

        self.module.train()
        rate = self.config.learning_rate * _schedule(
            self.state.step, self.total_steps, self.config.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for start in range(0, len(batch), self.state.micro_batch):
            rows = batch[start : start + self.state.micro_batch]
            share = len(rows) / len(batch)
            losses = self.task.loss(self.module, rows)
            torch.autograd.backward(losses["loss"] * share)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + share * float(value.detach())
        self._refuse_infinite(sums, "training")
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.clip_norm)
        self.optimizer.step()
        return sums

    def _refuse_infinite(self, losses: dict[str, float], what: str) -> None:
        if not all(math.isfinite(value) for value in losses.values()):
            raise TrainingFailed(
                f"the {what} loss is no longer finite at step {self.state.step} ({losses}): "
                "lower the learning rate, or look for extreme prices in the bars"
            )

    def _report(self, validation_loss: float | None, first: int) -> None:
        since = self.state.steps[first:]
        train_loss = float(np.mean([s["loss"] for s in since])) if since else math.nan
        numbered = tuple((first + i + 1, losses) for i, losses in enumerate(since))
        self.report(
            Progress(
                epoch=self.state.epoch,
                epochs=self.config.epochs,
                step=self.state.step,
                steps=self.total_steps,
                train_loss=train_loss,
                validation_loss=validation_loss,
                learning_rate=float(self.optimizer.param_groups[0]["lr"]),
                seconds=time.perf_counter() - self.started,
                step_losses=numbered if validation_loss is not None else (),
            )
        )

    def save(self, checkpoint: TrainingCheckpoint) -> None:
        """Write weights, best weights, optimizer moments, random state and `FitState`."""
        moments = {
            f"{name}/{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        checkpoint.save(self.weights(), self.best, moments, _random_states(self.module), self.state)

    def resume(self, checkpoint: TrainingCheckpoint) -> int | None:
        """Take up a stored fit; returns the epoch it had finished, None if there is none."""
        stored = checkpoint.load()
        if stored is None:
            return None
        self.load_weights(stored.weights)
        self.best = {n: stored.best[n].to(p.device) for n, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            prefix = f"{name}/"
            self.optimizer.state[parameter] = {
                # AdamW keeps its step count on the CPU whatever the device of the weights.
                key.removeprefix(prefix): value.to(parameter.device)
                if value.ndim
                else value.clone()
                for key, value in stored.moments.items()
                if key.startswith(prefix)
            }
        _set_random_states(stored.random, self.module)
        self.state = FitState(**stored.state)
        return self.state.epoch


def _schedule(step: int, total: int, warmup: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then cosine decay to LOWEST_RATE."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    return LOWEST_RATE + (1 - LOWEST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _random_states(module: nn.Module) -> dict[str, torch.Tensor]:
    import torch

    states = {"cpu": torch.get_rng_state()}
    for device in {p.device for p in module.parameters() if p.device.type == "cuda"}:
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, torch.Tensor], module: nn.Module) -> None:
    import torch

    torch.set_rng_state(states["cpu"])
    for device in {p.device for p in module.parameters() if p.device.type == "cuda"}:
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], device)
