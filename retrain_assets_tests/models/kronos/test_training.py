"""The training loss of Kronos adapters: each of the guide's losses is real, and none sees ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from retrain_assets.errors import BadInput
from retrain_assets.models import lora
from retrain_assets.models.forecaster import LoadedModel, ModelLimits, WindowRange
from retrain_assets.models.kronos.training import KronosTrainingTask
from retrain_assets_tests.tiny import random_modules, random_walk

TRAIN = WindowRange(first=32, stop=90, context=32, horizon=8, stride=4)
VALIDATION = WindowRange(first=90, stop=110, context=32, horizon=8)
LOSSES = ("huber", "heteroscedastic", "mse")


def model(rank: int = 4) -> LoadedModel:
    """A two-layer Kronos with random weights and a fresh adapter."""
    network, tokenizer = random_modules()
    settings = lora.LoraSettings(rank, 2 * rank, 0.0, ("q_proj", "k_proj", "v_proj", "w1", "w2"))
    return LoadedModel(
        family="kronos",
        base="tiny",
        module=lora.attach(network.requires_grad_(False), settings, seed=1),
        companion=tokenizer,
        limits=ModelLimits(512),
        fingerprint="",
        device=torch.device("cpu"),
    )


def task(loaded: LoadedModel, loss: str, frame: pd.DataFrame | None = None) -> KronosTrainingTask:
    frame = random_walk(120) if frame is None else frame
    return KronosTrainingTask(loaded, frame, train=TRAIN, validation=VALIDATION, loss=loss)


ROWS = np.arange(4)


def gradients(loaded: LoadedModel, losses: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    wanted = lora.trainable(loaded.module)
    found = torch.autograd.grad(losses[name], wanted, retain_graph=True, allow_unused=True)
    pairs = zip(found, wanted, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_moves_gradients_beyond_the_cross_entropy(loss: str) -> None:
    loaded = model()
    torch.manual_seed(0)
    losses = task(loaded, loss).loss(loaded.module, ROWS)
    assert set(losses) == {"loss", "cross_entropy_s1", "cross_entropy_s2", loss}
    assert gradients(loaded, losses, loss).abs().sum() > 0
    entropy = gradients(loaded, losses, "cross_entropy_s1") / 2
    entropy = entropy + gradients(loaded, losses, "cross_entropy_s2") / 2
    whole = gradients(loaded, losses, "loss")
    assert (whole - entropy).norm() > 1e-4 * entropy.norm()


def test_the_losses_differ_from_each_other() -> None:
    loaded = model()
    directions = {}
    for loss in LOSSES:
        torch.manual_seed(0)
        losses = task(loaded, loss).loss(loaded.module, ROWS)
        found = gradients(loaded, losses, loss)
        directions[loss] = found / found.norm()
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        cosine = float(directions[LOSSES[one]] @ directions[LOSSES[other]])
        assert cosine < 0.9999, (LOSSES[one], LOSSES[other])


@pytest.mark.parametrize("loss", LOSSES)
def test_following_its_gradient_alone_lowers_it(loss: str) -> None:
    loaded = model()
    loaded.module.eval()
    own = task(loaded, loss)
    every = np.arange(own.train_windows)
    optimizer = torch.optim.Adam(lora.trainable(loaded.module), lr=0.02)
    seen = []
    for _ in range(25):
        torch.manual_seed(0)
        part = own.loss(loaded.module, every)[loss]
        seen.append(float(part.detach()))
        optimizer.zero_grad()
        part.backward()
        optimizer.step()
    assert max(seen[-5:]) < min(seen[:5])


def test_the_point_forecast_decodes_certain_tokens_exactly() -> None:
    loaded = model()
    own = task(loaded, "huber")
    batch = own.train.rows(ROWS, loaded.device)
    sure = [
        torch.nn.functional.one_hot(tokens[:, -8:], 16).float() * 1e4
        for tokens in (batch.s1, batch.s2)
    ]
    mean, variance = own._point_forecast(batch, sure[0], sure[1], None)
    decoded = own.tokenizer.decode(batch.s1, batch.s2)[:, -8:, 3]
    torch.testing.assert_close(mean, decoded, rtol=1e-5, atol=1e-6)
    assert variance is None


def test_the_variance_estimate_is_the_delta_methods() -> None:
    """Averaged over many probes it equals the sum over bits, differentiated one by one."""
    loaded = model()
    own = task(loaded, "heteroscedastic")
    batch = own.train.rows(np.arange(1), loaded.device)
    draw = torch.Generator().manual_seed(1)
    s1_logits, s2_logits = (4 * torch.randn(1, 8, 16, generator=draw) for _ in range(2))
    bits = own.tokenizer.expected_bits(s1_logits, s2_logits)
    prefix = own.tokenizer.token_bits(batch.s1[:, :-8], batch.s2[:, :-8])

    def closes(b: torch.Tensor) -> torch.Tensor:
        return own.tokenizer.decode_bits(torch.cat((prefix, b), dim=1))[0, -8:, 3]

    slopes = torch.autograd.functional.jacobian(closes, bits)[:, 0].flatten(1)  # (h, h C)
    exact = slopes.square() @ (1 / own.tokenizer.code_bits - bits.square()).flatten()
    drawn = [own._point_forecast(batch, s1_logits, s2_logits, draw)[1] for _ in range(150)]
    estimate = torch.cat([d for d in drawn if d is not None]).mean(dim=0)
    torch.testing.assert_close(estimate, exact, rtol=0.3, atol=1e-4)


def test_validation_is_without_noise_and_does_not_touch_the_random_state() -> None:
    loaded = model()
    loaded.module.eval()
    own = task(loaded, "heteroscedastic")
    torch.manual_seed(3)
    first, state = own.validation(loaded.module), torch.get_rng_state()
    assert own.validation(loaded.module) == first
    torch.manual_seed(3)
    assert torch.equal(state, torch.get_rng_state())


def test_no_bar_after_the_validation_segment_matters() -> None:
    loaded = model()
    loaded.module.eval()
    later = random_walk(120)
    later.loc[VALIDATION.stop :, ["open", "high", "low", "close"]] *= 3
    own, changed = task(loaded, "huber"), task(loaded, "huber", later)
    assert own.validation(loaded.module) == changed.validation(loaded.module)
    for name in ("s1", "s2", "stamps", "closes"):
        assert torch.equal(getattr(own.train, name), getattr(changed.train, name))


def test_no_validation_bar_enters_a_training_window() -> None:
    loaded = model()
    later = random_walk(120)
    later.loc[TRAIN.stop :, ["open", "high", "low", "close"]] *= 3
    own, changed = task(loaded, "huber"), task(loaded, "huber", later)
    assert torch.equal(own.train.s1, changed.train.s1)
    assert torch.equal(own.train.closes, changed.train.closes)
    assert not torch.equal(own.held_out.s1, changed.held_out.s1)


def test_validation_scores_the_targets_alone() -> None:
    loaded = model()
    loaded.module.eval()
    own = task(loaded, "huber")
    held = own.held_out
    with torch.no_grad():
        logits = loaded.module(
            held.s1[:, :-1], held.s2[:, :-1], held.stamps[:, :-1], held.s1[:, 1:]
        )
    entropies = torch.nn.functional.cross_entropy(
        logits[0].transpose(1, 2), held.s1[:, 1:], reduction="none"
    )  # (B, T - 1)
    found = own.validation(loaded.module)["cross_entropy_s1"]
    assert found == pytest.approx(float(entropies[:, -8:].mean()), rel=1e-5)
    assert found != pytest.approx(float(entropies.mean()), rel=1e-3)


def test_training_counts_every_position() -> None:
    loaded = model()
    loaded.module.eval()
    own = task(loaded, "huber")
    held = own.train
    with torch.no_grad():
        logits = loaded.module(
            held.s1[:, :-1], held.s2[:, :-1], held.stamps[:, :-1], held.s1[:, 1:]
        )
        found = own.loss(loaded.module, np.arange(own.train_windows))
    for name, given, tokens in zip("12", logits, (held.s1, held.s2), strict=True):
        by_hand = torch.nn.functional.cross_entropy(given.transpose(1, 2), tokens[:, 1:])
        torch.testing.assert_close(found[f"cross_entropy_s{name}"], by_hand)


def test_targets_that_are_cut_off_do_not_count() -> None:
    """Windows cut at the segment's end score as their own shorter horizons do, together."""
    loaded = model()
    loaded.module.eval()
    cut = WindowRange(first=106, stop=110, context=32, horizon=8, stride=2, cut_targets=True)
    own = KronosTrainingTask(loaded, random_walk(110), train=TRAIN, validation=cut, loss="mse")
    assert own.held_out.kept.sum(dim=1).tolist() == [4, 2]
    found = own.validation(loaded.module)
    expected = 0.0
    for first in (106, 108):
        alone = WindowRange(first=first, stop=110, context=32, horizon=110 - first, stride=9)
        single = KronosTrainingTask(
            loaded, random_walk(110), train=TRAIN, validation=alone, loss="mse"
        )
        expected += single.validation(loaded.module)["loss"] * (110 - first) / 6
    assert found["loss"] == pytest.approx(expected, rel=1e-4)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(BadInput, match="choose one of huber"):
        task(model(), "mae")
