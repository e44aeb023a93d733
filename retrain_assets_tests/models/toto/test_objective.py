"""Toto's losses: what they are of, and that they reach the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.objective import Batch, log_density, losses, padded, pinball
from retrain_assets.models.toto.toto1 import MixtureParameters
from retrain_assets_tests.models.toto.cases import GENERATIONS, PATCH, tiny
from retrain_assets_tests.models.toto.toto2_cases import knots, walks

both = pytest.mark.parametrize("generation", GENERATIONS)
each_loss = pytest.mark.parametrize("loss", ["huber", "mse", "heteroscedastic"])


def batch(*, cut: int = 3, patches: int = 5, variates: int = 1, seed: int = 0) -> Batch:
    values = 50 * walks(3, variates, patches * PATCH, seed=seed)
    return Batch(values, torch.ones(3, patches * PATCH, dtype=torch.bool), torch.full((3,), cut))


@both
@each_loss
def test_every_loss_moves_the_weights_and_says_its_parts(generation: int, loss: str) -> None:
    network = tiny(generation)
    network.requires_grad_(True)
    found, count = losses(network, batch(variates=5), loss=loss)
    likelihood = "negative_log_likelihood" if generation == 1 else "pinball"
    assert set(found) == {"loss", likelihood} | ({loss} - {"heteroscedastic"})
    assert int(count) == 3 * 4 * PATCH  # nothing predicts the first patch
    parts = [value for name, value in found.items() if name != "loss"]
    torch.testing.assert_close(found["loss"], torch.stack(parts).sum())
    found["loss"].backward()
    moved = [
        n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    ]
    assert any("wQKV" in n or "in_proj" in n for n in moved)
    assert any("mlp.2" in n or "fc2" in n for n in moved)


@both
def test_only_what_is_scored_counts(generation: int) -> None:
    network, whole = tiny(generation), batch()
    scored = whole.scored.clone()
    scored[:, -PATCH:] = False
    scored[1, -2 * PATCH :] = False
    changed = whole.values.clone()
    changed[:, :, -PATCH:] = 1e4
    first, count = losses(network, whole._replace(scored=scored), loss="huber")
    second, _ = losses(network, whole._replace(scored=scored, values=changed), loss="huber")
    assert int(count) == int(scored[:, PATCH:].sum())
    assert torch.equal(first["loss"], second["loss"])


@both
def test_a_position_is_scored_on_the_patch_after_it(generation: int) -> None:
    """A patch that is a target only moves the losses of its own steps, and no forecast."""
    network, whole = tiny(generation), batch(cut=5)
    per_patch = []
    for patch in range(1, 5):
        scored = torch.zeros_like(whole.scored)
        scored[:, patch * PATCH : (patch + 1) * PATCH] = True
        per_patch.append(whole._replace(scored=scored))
    changed = whole.values.clone()
    changed[:, :, 4 * PATCH :] += 300
    for i, one in enumerate(per_patch):
        before, _ = losses(network, one, loss="mse")
        after, _ = losses(network, one._replace(values=changed), loss="mse")
        assert torch.equal(before["loss"], after["loss"]) == (i < 3)


def test_toto_2_forecasts_a_masked_horizon_without_reading_it() -> None:
    network, whole = tiny(2), batch(cut=3)
    near = torch.zeros_like(whole.scored)
    near[:, 4 * PATCH :] = True  # two patches after the cut
    changed = whole.values.clone()
    changed[:, :, 3 * PATCH : 4 * PATCH] += 500
    first, _ = losses(network, whole._replace(scored=near), loss="huber")
    second, _ = losses(network, whole._replace(scored=near, values=changed), loss="huber")
    assert torch.equal(first["loss"], second["loss"])
    shown, _ = losses(
        network, whole._replace(scored=near, values=changed, cut=torch.full((3,), 5)), loss="huber"
    )
    assert not torch.equal(first["loss"], shown["loss"])


@both
def test_masking_is_what_a_forecast_does(generation: int) -> None:
    """The point losses of the last patches are those of the network's own forecast."""
    network, whole = tiny(generation), batch(cut=3, patches=4)
    scored = torch.zeros_like(whole.scored)
    scored[:, 3 * PATCH :] = True
    found, count = losses(network, whole._replace(scored=scored), loss="mse")
    past, truth = whole.values[..., : 3 * PATCH], whole.values[:, 0, 3 * PATCH :]
    observed, groups = torch.ones_like(past, dtype=torch.bool), torch.zeros(3, 1, dtype=torch.int64)
    if generation == 2:
        units, loc, scale = knots(network, past, observed, observed, groups)
        target = ((truth - loc[:, 0, -1:]) / scale[:, 0, -1:]).asinh()
        error = units[:, 0, -1, :, 4] - target
    else:
        scaled = network.scaled(past, observed)
        mixtures = network.mixture(network.hidden(scaled.values, groups)[:, :, -1:])
        mean = (mixtures.log_weight.exp() * mixtures.mean).sum(-1)[:, 0, 0]
        error = mean - (truth - scaled.loc[:, 0, -1:]) / scaled.scale[:, 0, -1:]
    torch.testing.assert_close(found["mse"] / count, error.square().mean(), rtol=1e-5, atol=1e-6)


def test_the_density_is_the_mixtures() -> None:
    draw = np.random.default_rng(0)
    df, mean, scale = (
        2 + draw.gamma(2, size=(7, 3)),
        draw.normal(size=(7, 3)),
        draw.gamma(2, size=(7, 3)),
    )
    weight = draw.dirichlet(np.ones(3), size=7)
    y = draw.normal(size=7) * 3
    expected = np.log((weight * stats.t.pdf(y[:, None], df, mean, scale)).sum(-1))
    given = MixtureParameters(*(torch.from_numpy(x) for x in (df, mean, scale, np.log(weight))))
    np.testing.assert_allclose(log_density(given, torch.from_numpy(y)).numpy(), expected, rtol=1e-9)


def test_the_pinball_loss_is_least_at_the_quantiles() -> None:
    y = torch.from_numpy(np.random.default_rng(1).normal(size=20_000))
    right = torch.from_numpy(stats.norm.ppf(np.arange(1, 10) / 10))
    best = pinball(right.expand(len(y), 9), y).mean()
    for shift in (-0.1, 0.1):
        assert pinball((right + shift).expand(len(y), 9), y).mean() > best
    for spread in (0.8, 1.25):
        assert pinball((right * spread).expand(len(y), 9), y).mean() > best


def test_padding_repeats_the_last_value() -> None:
    values = torch.arange(12.0).view(1, 1, 12)
    found = padded(values, PATCH)
    assert found.shape == (1, 1, 16)
    assert found[0, 0, 12:].tolist() == [11.0] * 4
    assert padded(found, PATCH).shape == found.shape


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(BadInput, match="no loss 'mae': choose one of huber"):
        losses(tiny(1), batch(), loss="mae")
