"""The loop itself, on a small regression whose optimum is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from retrain_assets.errors import CheckpointError
from retrain_assets.training.resuming import TrainingCheckpoint
from retrain_assets.training.trainer import FitConfig, Progress, fit
from retrain_assets_tests.training.fits import CONFIG, LinearTask, equal, small_module


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
    assert {p.suffix for p in (tmp_path / "f").glob("*/*")} == {".safetensors", ".json"}


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
