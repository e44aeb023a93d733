"""The loop itself, on a small regression whose optimum is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from retrain_assets.errors import CheckpointError, RetrainError
from retrain_assets.training.checkpoints import TrainingCheckpoint
from retrain_assets.training.trainer import FitConfig, FitResult, Progress, fit


class LinearTask:
    """y = x @ w, 40 training and 16 validation rows; notes how many rows it is asked for."""

    train_windows = 40

    def __init__(self, most_rows: int = 10**9, poison_at: int | None = None) -> None:
        draw = torch.Generator().manual_seed(3)
        self.w = torch.randn(5, 1, generator=draw)
        self.x = torch.randn(56, 5, generator=draw)
        self.y = self.x @ self.w + 0.1 * torch.randn(56, 1, generator=draw)
        self.most_rows, self.poison_at, self.asked = most_rows, poison_at, []

    def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        if len(rows) > self.most_rows:
            raise torch.OutOfMemoryError("too many rows for this device")
        self.asked.append(len(rows))
        error = ((module(self.x[rows]) - self.y[rows]) ** 2).mean()
        if self.poison_at is not None and len(self.asked) > self.poison_at:
            error = error * math.nan
        return {"loss": error, "half": error / 2}

    def validation(self, module: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            return {"loss": float(((module(self.x[40:]) - self.y[40:]) ** 2).mean())}


def small_module(dropout: float = 0.2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(dropout), nn.Tanh(), nn.Linear(8, 1))


CONFIG = FitConfig(epochs=8, effective_batch=4, learning_rate=0.02, seed=11, patience=50)


def equal(a: FitResult, b: FitResult) -> bool:
    same_weights = all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights)
    return same_weights and a.state == b.state


def test_training_lowers_the_validation_loss_and_ends_at_the_best_epoch() -> None:
    module, task = small_module(0.0), LinearTask()
    result = fit(module, task, CONFIG)
    losses = [v["loss"] for v in result.state.validations]
    assert losses[0] > 3 * min(losses)
    assert result.state.best_loss == min(losses) == losses[result.state.best_epoch]
    module.eval()
    assert task.validation(module)["loss"] == result.state.best_loss
    assert len(result.state.steps) == result.state.step == 8 * 10


def test_same_inputs_give_the_same_bits_and_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fit(small_module(), LinearTask(), CONFIG)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert equal(first, fit(small_module(), LinearTask(), CONFIG))


def test_another_seed_gives_another_result() -> None:
    other = FitConfig(**{**CONFIG.__dict__, "seed": 12})
    assert not equal(
        fit(small_module(), LinearTask(), CONFIG), fit(small_module(), LinearTask(), other)
    )


@pytest.mark.parametrize("stop_after_epoch", [1, 3, 7])
def test_a_stopped_fit_resumes_to_the_same_bits(tmp_path: Path, stop_after_epoch: int) -> None:
    whole = fit(small_module(), LinearTask(), CONFIG)
    checkpoint = TrainingCheckpoint(tmp_path / "fit", "one", {"mlflow_run_id": "abc"})

    def stop(progress: Progress) -> None:
        if progress.epoch > stop_after_epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_module(), LinearTask(), CONFIG, checkpoint=checkpoint, report=stop)
    assert checkpoint.stored_notes() == {"mlflow_run_id": "abc"}
    resumed = fit(small_module(), LinearTask(), CONFIG, checkpoint=checkpoint)
    assert resumed.resumed_at_epoch == stop_after_epoch
    assert equal(whole, resumed)


def test_the_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    fit(
        small_module(), LinearTask(), CONFIG, checkpoint=TrainingCheckpoint(tmp_path / "f", "a", {})
    )
    with pytest.raises(CheckpointError, match="another training run"):
        fit(
            small_module(),
            LinearTask(),
            CONFIG,
            checkpoint=TrainingCheckpoint(tmp_path / "f", "b", {}),
        )


def test_checkpoints_hold_no_pickle(tmp_path: Path) -> None:
    fit(
        small_module(), LinearTask(), CONFIG, checkpoint=TrainingCheckpoint(tmp_path / "f", "a", {})
    )
    assert {p.suffix for p in (tmp_path / "f" / "last").iterdir()} == {".safetensors", ".json"}


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_batch() -> None:
    whole = fit(small_module(0.0), LinearTask(), CONFIG)
    tight_task = LinearTask(most_rows=1)
    tight = fit(small_module(0.0), tight_task, CONFIG)
    assert set(tight_task.asked) == {1}
    assert tight.state.micro_batch == 1
    assert tight.state.step == whole.state.step
    for name, value in whole.weights.items():
        torch.testing.assert_close(tight.weights[name], value, rtol=1e-4, atol=1e-5)


def test_a_window_that_never_fits_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RetrainError, match="shorten context_length"):
        fit(small_module(), LinearTask(most_rows=0), CONFIG)


def test_patience_ends_the_fit_early_at_the_best_weights() -> None:
    config = FitConfig(epochs=60, effective_batch=4, learning_rate=0.3, seed=1, patience=3)
    result = fit(small_module(), LinearTask(), config)
    assert result.stopped == "early"
    assert result.state.epoch == result.state.best_epoch + 3


def test_max_steps_bounds_the_fit_inside_an_epoch() -> None:
    config = FitConfig(**{**CONFIG.__dict__, "max_steps": 13})
    result = fit(small_module(), LinearTask(), config)
    assert (result.stopped, result.state.step, result.state.epoch) == ("max_steps", 13, 2)


def test_where_nothing_improves_the_start_comes_back() -> None:
    module = small_module()
    start = {n: p.detach().clone() for n, p in module.named_parameters()}

    class Worsening(LinearTask):
        calls = 0

        def validation(self, module: nn.Module) -> dict[str, float]:
            self.calls += 1
            return {"loss": float(self.calls)}

    result = fit(module, Worsening(), CONFIG)
    assert result.state.best_epoch == 0
    assert all(torch.equal(p, start[n]) for n, p in module.named_parameters())


def test_a_loss_that_is_no_number_stops_with_the_step_and_a_remedy() -> None:
    with pytest.raises(RetrainError, match=r"step 7 .*lower the learning rate"):
        fit(small_module(), LinearTask(poison_at=7), CONFIG)


def test_reports_count_every_step_once() -> None:
    reports: list[Progress] = []
    fit(small_module(), LinearTask(), CONFIG, report=reports.append)
    numbered = [number for r in reports for number, _ in r.step_losses]
    assert numbered == list(range(1, 81))
    assert [r.epoch for r in reports if r.validation_loss is not None] == list(range(1, 9))


def test_frozen_parameters_stay() -> None:
    module = small_module()
    module[0].requires_grad_(False)
    frozen = module[0].weight.detach().clone()
    result = fit(module, LinearTask(), CONFIG)
    assert torch.equal(module[0].weight, frozen)
    assert set(result.weights) == {"3.weight", "3.bias"}
