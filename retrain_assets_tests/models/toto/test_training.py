"""Toto's training batches: variates that come and go, cut points, and nothing that sees ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from retrain_assets.errors import BadInput
from retrain_assets.models import lora
from retrain_assets.models.forecaster import LoadedModel, WindowRange
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto import training as module
from retrain_assets.models.toto.training import TotoTrainingTask
from retrain_assets_tests.models.toto.cases import GENERATIONS, PATCH, model
from retrain_assets_tests.tiny import random_walk

TRAIN = WindowRange(first=32, stop=90, context=32, horizon=12, stride=4)
VALIDATION = WindowRange(first=90, stop=110, context=32, horizon=12, cut_targets=True, stride=5)
PRICES = ["open", "high", "low", "close"]
ROWS = np.arange(6)
both = pytest.mark.parametrize("generation", GENERATIONS)


def adapted(generation: int) -> LoadedModel:
    """A tiny network with a fresh adapter."""
    loaded = model(generation)
    settings = lora.LoraSettings(4, 8, 0.0, FAMILY.lora_targets(loaded))
    loaded.module = lora.attach(loaded.module, settings, seed=1)
    return loaded


def task(
    loaded: LoadedModel, loss: str = "huber", frame: pd.DataFrame | None = None
) -> TotoTrainingTask:
    found = FAMILY.training_task(
        loaded,
        random_walk(120) if frame is None else frame,
        train=TRAIN,
        validation=VALIDATION,
        loss=loss,
    )
    assert isinstance(found, TotoTrainingTask)
    return found


def seeded(own: TotoTrainingTask, loaded: LoadedModel, seed: int = 0) -> dict[str, torch.Tensor]:
    loaded.module.eval()
    torch.manual_seed(seed)
    return own.loss(loaded.module, ROWS)


@both
@pytest.mark.parametrize("loss", ["huber", "heteroscedastic", "mse"])
def test_each_loss_moves_the_adapter(generation: int, loss: str) -> None:
    loaded = adapted(generation)
    found = seeded(task(loaded, loss), loaded)
    grads = torch.autograd.grad(found["loss"], lora.trainable(loaded.module), allow_unused=True)
    assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0
    assert set(task(loaded, loss).validation(loaded.module)) == set(found)


@both
def test_validation_is_without_noise_and_does_not_touch_the_random_state(generation: int) -> None:
    loaded = adapted(generation)
    loaded.module.eval()
    own = task(loaded)
    torch.manual_seed(3)
    first, state = own.validation(loaded.module), torch.get_rng_state()
    assert own.validation(loaded.module) == first
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())


@both
def test_no_bar_after_the_validation_segment_matters(generation: int) -> None:
    loaded = adapted(generation)
    loaded.module.eval()
    later = random_walk(120)
    later.loc[VALIDATION.stop :, PRICES] *= 3
    own, changed = task(loaded), task(loaded, frame=later)
    assert own.validation(loaded.module) == changed.validation(loaded.module)
    assert torch.equal(own.train.values, changed.train.values)


@both
def test_no_validation_bar_enters_a_training_window(generation: int) -> None:
    loaded = adapted(generation)
    later = random_walk(120)
    later.loc[TRAIN.stop :, PRICES] *= 3
    own, changed = task(loaded), task(loaded, frame=later)
    assert torch.equal(own.train.values, changed.train.values)
    assert not torch.equal(own.held_out.values, changed.held_out.values)


@both
def test_validation_scores_the_kept_targets_alone_with_and_without_companions(
    generation: int,
) -> None:
    loaded = adapted(generation)
    own = task(loaded)
    alone, beside = own._held_out(module.network_of(loaded.module), slice(None))
    assert alone.values.shape[1] == 1
    assert beside.values.shape[1] == 5
    for batch in (alone, beside):
        assert not batch.scored[:, :32].any()
        assert torch.equal(batch.scored[:, 32:44], own.held_out.kept)
        assert not batch.scored[:, 44:].any()  # the padding up to a whole patch
    assert not own.held_out.kept.all()


@both
def test_the_close_stands_alone_in_about_half_of_the_windows(
    generation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = adapted(generation)
    own, seen = task(loaded), {1: 0, 5: 0}
    real = module.losses

    def counted(network, batch, *, loss):  # type: ignore[no-untyped-def]
        seen[batch.values.shape[1]] += len(batch.values)
        return real(network, batch, loss=loss)

    monkeypatch.setattr(module, "losses", counted)
    torch.manual_seed(0)
    for _ in range(30):
        own.loss(loaded.module, ROWS)
    assert sum(seen.values()) == 180
    assert 60 < seen[1] < 120


def test_only_toto_2_is_cut_and_at_every_patch_of_the_later_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for generation, expected in ((1, {4}), (2, {2, 3, 4})):
        loaded = adapted(generation)
        own, cuts = task(loaded), set()
        real = module.losses

        def noted(network, batch, *, loss, cuts=cuts, real=real):  # type: ignore[no-untyped-def]
            cuts.update(batch.cut.tolist())
            # What counts ends a horizon after the cut, inside the window.
            ends = batch.scored.sum(dim=1)
            assert torch.equal(ends, torch.minimum(batch.cut * PATCH + 12, torch.tensor(44)))
            return real(network, batch, loss=loss)

        monkeypatch.setattr(module, "losses", noted)
        torch.manual_seed(0)
        for _ in range(10):
            own.loss(loaded.module, ROWS)
        assert cuts == expected


@both
def test_the_loss_is_that_of_its_windows_whatever_the_micro_batch(generation: int) -> None:
    """Means over windows that score equally many closes add up, as the trainer adds them."""
    loaded = adapted(generation)
    own = task(loaded)
    network = module.network_of(loaded.module)
    whole = own._held_out(network, slice(0, 2))[1]
    together = module._mean([module.losses(network, whole, loss="huber")])
    singly = module._mean(
        [
            module.losses(
                network, module._chosen(whole, torch.arange(2) == i, variates=None), loss="huber"
            )
            for i in range(2)
        ]
    )
    torch.testing.assert_close(together["loss"], singly["loss"], rtol=1e-5, atol=1e-7)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(BadInput, match="no loss 'mae'"):
        task(adapted(1), "mae")
