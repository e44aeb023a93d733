"""What goes wrong in a fit: short memory, losses that are no numbers, damaged checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retrain_assets.errors import OutOfMemory, TrainingFailed
from retrain_assets.training.resuming import TrainingCheckpoint
from retrain_assets.training.trainer import FitConfig, Progress, fit
from retrain_assets_tests.training.fits import CONFIG, LinearTask, equal, small_module


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_batch() -> None:
    whole = fit(small_module(0.0), LinearTask(), CONFIG)
    tight_task = LinearTask(most_rows=1)
    tight = fit(small_module(0.0), tight_task, CONFIG)
    assert set(tight_task.asked) == {1}
    assert tight.state.micro_batch == 1
    assert tight.state.step == whole.state.step
    for name, value in whole.weights.items():
        torch.testing.assert_close(tight.weights[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most_rows", [1, 2])
def test_what_memory_was_too_short_for_has_the_bits_of_a_fit_that_began_so(most_rows: int) -> None:
    tight = fit(small_module(), LinearTask(most_rows=most_rows), CONFIG)
    assert equal(tight, fit(small_module(), LinearTask(), replace(CONFIG, micro_batch=most_rows)))


class Allocator(TorchDispatchMode):
    """Refuses every tensor of more bytes than `most`, as a device without so many does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.refused = most, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.nbytes > self.most:
                self.refused += 1
                raise torch.OutOfMemoryError(f"tried to allocate {tensor.nbytes} bytes")
        return made


def test_an_allocator_that_refuses_halves_the_micro_batch() -> None:
    config = replace(CONFIG, effective_batch=40)
    messages: list[Progress] = []
    task = LinearTask()
    with Allocator(most=700) as allocator:  # 20 rows of 8 activations are 640 bytes
        tight = fit(small_module(), task, config, report=messages.append)
    assert allocator.refused == 1
    assert tight.state.micro_batch == 20
    assert equal(tight, fit(small_module(), LinearTask(), replace(config, micro_batch=20)))
    (told,) = [progress.message for progress in messages if progress.message]
    assert told.startswith("the memory takes 20 of 40 windows at once")


def test_a_window_that_never_fits_is_an_error_with_a_remedy() -> None:
    with pytest.raises(OutOfMemory, match="choose a smaller base, or shorten --context-length"):
        fit(small_module(), LinearTask(most_rows=0), CONFIG)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), RuntimeError("can't allocate memory")]
)
def test_a_validation_that_does_not_fit_says_so(error: Exception) -> None:
    class Tight(LinearTask):
        def validation(self, module: nn.Module) -> dict[str, float]:
            raise error

    with pytest.raises(OutOfMemory, match="one window does not fit"):
        fit(small_module(), Tight(), CONFIG)


def test_an_optimizer_that_ran_out_of_memory_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have moved some of the weights by then: another try would move them twice."""

    def short(self: torch.optim.AdamW) -> None:
        raise torch.OutOfMemoryError("no room for moments")

    monkeypatch.setattr(torch.optim.AdamW, "step", short)
    task = LinearTask()
    with pytest.raises(OutOfMemory, match="no room for moments"):
        fit(small_module(), task, CONFIG)
    assert task.asked == [4]


def told(reports: list[Progress]) -> list[str]:
    return [progress.message for progress in reports if progress.message]


def test_a_loss_that_is_no_number_goes_back_to_the_last_good_epoch_at_half_the_rate() -> None:
    reports: list[Progress] = []
    result = fit(small_module(), LinearTask(poison_at=[27]), CONFIG, report=reports.append)
    assert (result.state.rollbacks, result.state.rate_factor) == (1, 0.5)
    assert (result.state.step, len(result.state.steps)) == (80, 80)
    assert len(result.state.validations) == 9
    (message,) = told(reports)
    assert "training loss is no longer finite" in message
    assert "at step 26: back to the end of epoch 2, and on at 0.5 of the learning rate" in message
    smooth = fit(small_module(), LinearTask(), CONFIG)
    assert result.state.steps[:20] == smooth.state.steps[:20]
    assert result.state.steps[20] == smooth.state.steps[20], "the same weights, masks and batch"
    assert result.state.steps[21] != smooth.state.steps[21], "but a smaller step"
    rates = [r.learning_rate for r in reports if r.validation_loss is not None]
    assert rates[2:] == [rate / 2 for rate in scheduled(3, 8)]


def scheduled(first: int, last: int) -> list[float]:
    """Rates at the ends of epochs where nothing went wrong."""
    reports: list[Progress] = []
    fit(small_module(), LinearTask(), CONFIG, report=reports.append)
    ends = [r for r in reports if r.validation_loss is not None]
    return [r.learning_rate for r in ends if first <= r.epoch <= last]


def test_a_rollback_survives_a_kill_and_what_it_went_back_for_need_not_come_again(
    tmp_path: Path,
) -> None:
    whole = fit(small_module(), LinearTask(poison_at=[27]), CONFIG)
    checkpoint = TrainingCheckpoint(tmp_path / "fit", "one", {})

    def stop(progress: Progress) -> None:
        if progress.message is None and progress.epoch == 3 and reached:
            raise KeyboardInterrupt
        reached.extend([progress] if progress.message else [])

    reached: list[Progress] = []
    task = LinearTask(poison_at=[27])
    with pytest.raises(KeyboardInterrupt):
        fit(small_module(), task, CONFIG, checkpoint=checkpoint, report=stop)
    resumed = fit(small_module(), LinearTask(), CONFIG, checkpoint=checkpoint)
    assert (resumed.resumed_at_epoch, resumed.state.rollbacks) == (2, 1)
    assert equal(whole, resumed)


def test_a_first_epoch_that_fails_begins_again_from_the_start(tmp_path: Path) -> None:
    checkpoint = TrainingCheckpoint(tmp_path / "fit", "one", {})
    task = LinearTask(poison_at=[3])
    result = fit(small_module(), task, CONFIG, checkpoint=checkpoint)
    assert (result.state.rollbacks, result.state.step) == (1, 80)
    gentle = replace(CONFIG, learning_rate=CONFIG.learning_rate / 2)
    assert [s["loss"] for s in result.state.steps] == [
        s["loss"] for s in fit(small_module(), LinearTask(), gentle).state.steps
    ]


def test_a_loss_that_is_no_number_a_third_time_fails_with_the_step_and_a_remedy() -> None:
    reports: list[Progress] = []
    task = LinearTask(poison_at=range(27, 10**6))
    with pytest.raises(
        TrainingFailed, match=r"at step 20, also at 0.25 of .*: lower the learning rate"
    ):
        fit(small_module(), task, CONFIG, report=reports.append)
    assert len(told(reports)) == 2


def test_gradients_that_are_no_numbers_go_back_too() -> None:
    class Rooted(LinearTask):
        def loss(self, module: nn.Module, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
            losses = super().loss(module, rows)
            if len(self.asked) == 15:  # finite, but its derivative at zero is not
                losses["loss"] = losses["loss"] + (losses["loss"] - losses["loss"].detach()).sqrt()
            return losses

    result = fit(small_module(), Rooted(), CONFIG)
    assert result.state.rollbacks == 1
    assert all(torch.isfinite(value).all() for value in result.weights.values())


class Scoring(LinearTask):
    """Its validation is no number at these calls, counted from 0."""

    def __init__(self, *broken: int) -> None:
        super().__init__()
        self.broken, self.calls = broken, -1

    def validation(self, module: nn.Module) -> dict[str, float]:
        self.calls += 1
        return {"loss": math.nan} if self.calls in self.broken else super().validation(module)


def test_a_validation_that_is_no_number_goes_back_too() -> None:
    result = fit(small_module(), Scoring(3), CONFIG)
    assert (result.state.rollbacks, len(result.state.validations)) == (1, 9)


def test_a_base_that_is_broken_fails_before_the_first_step() -> None:
    task = Scoring(0)
    with pytest.raises(TrainingFailed, match="before the first step: the base or the adapter"):
        fit(small_module(), task, CONFIG)
    assert (task.calls, task.asked) == (0, [])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def other_loss(file: Path) -> None:
    value = json.loads(file.read_text())
    value["state"]["best_loss"] /= 2
    file.write_text(json.dumps(value))


HARMS: list[tuple[str, Callable[[Path], None]]] = [
    ("weights.safetensors", cut),
    ("moments.safetensors", flip),
    ("best.safetensors", Path.unlink),
    ("state.json", cut),
    ("state.json", other_loss),
    ("state.json", lambda file: file.write_text("[]")),
    ("state.json", lambda file: file.write_text("{}")),
    ("state.json", Path.unlink),
]


@pytest.mark.parametrize(("name", "harm"), HARMS)
@pytest.mark.parametrize("generations", [1, 2])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_ends_the_same(
    tmp_path: Path, name: str, harm: Callable[[Path], None], generations: int
) -> None:
    config = replace(CONFIG, epochs=4)
    checkpoint = TrainingCheckpoint(tmp_path / "fit", "one", {"run": "abc"})

    def stop(progress: Progress) -> None:
        if progress.epoch > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small_module(), LinearTask(), config, checkpoint=checkpoint, report=stop)
    stored = sorted(checkpoint.folder.iterdir())
    assert [folder.name for folder in stored] == ["000002", "000003"]
    for folder in stored[-generations:]:
        harm(folder / name)
    reports: list[Progress] = []
    resumed = fit(
        small_module(), LinearTask(), config, checkpoint=checkpoint, report=reports.append
    )
    assert resumed.resumed_at_epoch == (2 if generations == 1 else None)
    assert len(resumed.damage) == generations
    assert name in resumed.damage[0]
    goes_on = "goes on from epoch 2" if generations == 1 else "starts anew"
    assert told(reports)[0].endswith(goes_on)
    assert equal(fit(small_module(), LinearTask(), config), resumed)


def test_a_fit_that_was_killed_at_its_end_takes_no_step_more(tmp_path: Path) -> None:
    config = FitConfig(epochs=60, effective_batch=4, learning_rate=0.3, seed=1, patience=3)
    checkpoint = TrainingCheckpoint(tmp_path / "fit", "one", {})
    whole = fit(small_module(), LinearTask(), config, checkpoint=checkpoint)
    task = LinearTask()
    again = fit(small_module(), task, config, checkpoint=checkpoint)
    assert equal(whole, again)
    assert again.stopped == whole.stopped == "early"
    assert task.asked == []
