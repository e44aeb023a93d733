from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from retrain_assets.models import lora
from retrain_assets.models.toto.folding import unfold
from retrain_assets.models.toto.moments import running_moments
from retrain_assets.models.toto.toto2 import (
    KNOTS,
    MIN_SCALE,
    Toto2Network,
    from_units,
    to_units,
)
from retrain_assets_tests.models.toto.toto2_cases import (
    PUBLISHED_4M,
    SHAPES,
    TINY,
    WINDOWS,
    config_of,
    knots,
    network_of,
    published_model,
    published_weights,
    tiny_network,
    toto2_package,
    walks,
    window,
)

PATCH = TINY["patch_size"]
SETTINGS = lora.LoraSettings(4, 8, 0.0, ("in_proj", "out_proj", "fc1", "fc2"))


@pytest.fixture(scope="module")
def package() -> ModuleType:
    return toto2_package()


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest) -> Any:
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


def horizon_masks(values: Tensor) -> Tensor:
    """Known steps as in training: a row cut in the middle of a patch, one with a gap and a cut."""
    known = torch.ones_like(values, dtype=torch.bool)
    known[0, :, -20:] = False
    known[1, :, 8:16] = False
    known[1, 0, -PATCH:] = False
    return known


def assert_close(ours: Tensor, theirs: Tensor, *, tolerance: float = 1e-5) -> None:
    """Quantiles on the last axis agree, in relation to their own spread from 10 to 90 %."""
    spread = theirs[..., -1:] - theirs[..., :1]
    assert ours.shape == theirs.shape
    assert spread.min() > 0.1
    assert ((ours - theirs).abs() / spread).max() <= tolerance


# Parity with the published package.


def test_names_and_shapes_are_the_published_ones(package: ModuleType) -> None:
    for fields in (PUBLISHED_4M, *(TINY | change for change in SHAPES.values())):
        with torch.device("meta"):
            ours = Toto2Network(config_of(fields)).state_dict()
            theirs = package.Toto2Model(package.Toto2ModelConfig(**fields)).state_dict()
        assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
            k: (v.shape, v.dtype) for k, v in theirs.items()
        }


@pytest.mark.parametrize("shape", SHAPES)
def test_forecasts_are_the_published_ones(package: ModuleType, shape: str) -> None:
    fields = TINY | SHAPES[shape]
    weights = published_weights(fields)
    ours, theirs = network_of(fields, weights), published_model(package, fields, weights)
    for case in WINDOWS if shape == "published" else ("groups", "missing"):
        values, observed, groups = window(case)
        inputs = {"target": values, "target_mask": observed, "series_ids": groups}
        for horizon in (16, 64, 100) if shape == "published" else (20,):
            expected = theirs.forecast(inputs, horizon, has_missing_values=True).movedim(0, -1)
            assert_close(ours.forecast(values, observed, groups, horizon), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_quantiles_are_the_published_ones(package: ModuleType, shape: str) -> None:
    fields = TINY | SHAPES[shape]
    weights = published_weights(fields, seed=1)
    ours, theirs = network_of(fields, weights), published_model(package, fields, weights)
    values, observed, groups = window("missing")
    observed[0, 1, -PATCH:] = False  # neither observed nor known: part of the horizon all the same
    known = horizon_masks(values)
    units, loc, scale = knots(ours, values, observed, known, groups)
    expected = theirs(values, observed, known, groups)
    torch.testing.assert_close(units, expected.quantiles.movedim(0, -1), atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(loc, expected.loc[..., ::PATCH], atol=0, rtol=1e-6)
    torch.testing.assert_close(scale, expected.scale[..., ::PATCH], atol=0, rtol=1e-6)


def test_a_fresh_network_starts_as_the_published_one(package: ModuleType) -> None:
    fields = TINY | {"d_model": 64, "num_layers": 6, "qk_norm": True}
    torch.manual_seed(0)
    ours = unfold(Toto2Network(config_of(fields)).state_dict())
    theirs = package.Toto2Model(package.Toto2ModelConfig(**fields)).state_dict()
    for name, weight in theirs.items():
        if weight.ndim == 2:
            assert abs(ours[name].std() - weight.std()) < 0.1
        else:
            torch.testing.assert_close(ours[name], weight, atol=0, rtol=1e-6)


def test_forecasts_are_those_once_measured() -> None:
    # toto-2 2.0.0 on torch 2.13.0, for where the package itself is not installed.
    low = [18.97399, 19.07146, 19.14758, 19.44931]
    high = [19.68368, 19.84939, 19.87593, 19.93934, 19.99407]
    quantiles = tiny_network().forecast(*window("missing"), 20)
    assert quantiles[1, 2, 17].tolist() == pytest.approx(low + high, abs=2e-5)


# What holds without the package.


def test_the_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Toto2Network(config_of(PUBLISHED_4M))
    assert sum(p.numel() for p in network.parameters()) == 4_144_448


def test_scaling_knows_each_patchs_past() -> None:
    values, observed, _ = window("missing")
    values = values * 1e-3 + 5e4  # large against their spread, as prices are
    scaled, loc, scale = tiny_network().scaled(values, observed)
    for row, variate, patch in ((0, 0, 1), (0, 0, 2), (1, 0, 4), (1, 2, 5)):
        end = (patch + 1) * PATCH
        past = values[row, variate, :end].double().numpy()[observed[row, variate, :end].numpy()]
        mean, spread = (past.mean(), past.std(ddof=1)) if len(past) else (0.0, MIN_SCALE)
        assert loc[row, variate, patch].item() == pytest.approx(mean, rel=1e-7)
        assert scale[row, variate, patch].item() == pytest.approx(spread, rel=1e-6)
        own = slice(end - PATCH, end)
        units = np.arcsinh((values[row, variate, own].double().numpy() - mean) / spread)
        expected = np.where(observed[row, variate, own].numpy(), units, 0)
        # The difference is taken in float32, where 5e4 has steps of 0.004.
        assert scaled[row, variate, own].numpy() == pytest.approx(expected, abs=0.004 / spread)


def test_a_constant_series_is_divided_by_the_floor() -> None:
    values = torch.full((1, 1, 2 * PATCH), 7.1)
    observed = torch.ones_like(values, dtype=torch.bool)
    mean, variance = running_moments(values, observed, PATCH)
    assert mean.dtype == variance.dtype == torch.float64
    scaled, loc, scale = tiny_network().scaled(values, observed)
    assert scale.flatten().tolist() == pytest.approx([MIN_SCALE] * 2)
    assert torch.equal(loc, values[..., ::PATCH])
    assert not scaled.any()


def test_units_are_inverted() -> None:
    values, loc, scale = walks(2, 3, 4, PATCH, 9), walks(2, 3, 4), walks(2, 3, 4).abs() + 0.1
    there = to_units(values, loc, scale)
    expected = np.arcsinh(((values[1, 2, 3] - loc[1, 2, 3]) / scale[1, 2, 3]).numpy())
    assert there[1, 2, 3].numpy() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(from_units(there, loc, scale), values)


def test_a_forecast_is_read_off_the_quantiles_of_a_masked_horizon() -> None:
    network = tiny_network()
    values, observed, groups = window("missing")
    observed[..., -PATCH:] = True
    ahead = 3 * PATCH
    whole = torch.cat((values, walks(2, 5, ahead)), -1)
    seen = torch.nn.functional.pad(observed, (0, ahead))
    known = torch.nn.functional.pad(torch.ones_like(observed), (0, ahead))
    units, loc, scale = knots(network, whole, seen, known, groups)
    assert units.shape == (2, 5, 9, PATCH, len(KNOTS))
    before = slice(-4, -1)  # the last position speaks of the patch after the horizon
    real = from_units(units[:, :, before], loc[:, :, before], scale[:, :, before])
    expected = real.sort(-1).values.flatten(2, 3)[:, :, :20]
    assert_close(network.forecast(values, observed, groups, 20), expected)


def test_only_positions_that_are_forecast_from_are_read_out() -> None:
    network = tiny_network()
    asked: list[int] = []
    head = network.output_head.get_submodule("param_projection.proj")
    head.register_forward_pre_hook(lambda _, x: asked.append(x[0].shape[2]))
    network.forecast(*window("groups"), 2 * PATCH + 1)
    assert asked == [3]


def test_no_output_depends_on_later_values() -> None:
    network = tiny_network()
    values, observed, groups = window("missing")
    known = torch.ones_like(observed)
    before = knots(network, values, observed, known, groups)
    for patch in (1, 3, 5):
        other, gone = values.clone(), observed.clone()
        other[..., patch * PATCH :] *= 1.1
        gone[..., patch * PATCH :] ^= True
        gone[..., patch * PATCH] = True  # else a patch may turn into padding
        after = knots(network, other, gone, known, groups)
        for one, two in zip(before, after, strict=True):
            assert torch.equal(one[:, :, :patch], two[:, :, :patch])
            changed = (one != two)[:, :, patch:]
            assert changed.reshape(*changed.shape[:3], -1).any(-1).all()


@pytest.mark.parametrize("garbage", [1e30, -3.0, float("nan")])
def test_values_of_the_horizon_and_of_gaps_never_matter(garbage: float) -> None:
    network = tiny_network()
    values, observed, groups = window("missing")
    known = horizon_masks(values)
    other = values.masked_fill(~(observed & known), garbage)
    for one, two in zip(
        knots(network, values, observed, known, groups),
        knots(network, other, observed, known, groups),
        strict=True,
    ):
        assert torch.equal(one, two)


def test_the_last_patch_of_a_context_counts_as_observed() -> None:
    network = tiny_network()
    values, observed, groups = window("one group")
    holes = observed.clone()
    holes[..., -3:] = False
    full = network.forecast(values, observed, groups, 5)
    assert torch.equal(network.forecast(values, holes, groups, 5), full)
    holes[..., -PATCH - 1] = False
    assert not torch.equal(network.forecast(values, holes, groups, 5), full)


def test_padding_changes_no_forecast() -> None:
    network = tiny_network()
    values, observed, groups = window("groups")
    ahead = (2 * PATCH, 0)
    padded, mask = nn.functional.pad(values, ahead, value=1e6), nn.functional.pad(observed, ahead)
    expected = network.forecast(values, observed, groups, 20)
    assert_close(network.forecast(padded, mask, groups, 20), expected)


def test_variates_see_those_of_their_group_alone() -> None:
    network = tiny_network()
    values, observed, groups = window("groups")  # first row 0 1 0 2 1
    known = torch.ones_like(observed)
    before = knots(network, values, observed, known, groups)[0]
    values[0, 1] = -values[0, 1]
    after = knots(network, values, observed, known, groups)[0]
    changed = (before != after)[0].flatten(1).any(-1)
    assert changed.tolist() == [False, True, False, False, True]
    assert torch.equal(before[1], after[1])


def test_forecasts_move_with_the_unit() -> None:
    network = tiny_network()
    values, observed, groups = window("missing")
    expected = network.forecast(values, observed, groups, 20)
    for factor in (1e-3, 1e5):
        moved = network.forecast(values * factor + 3 * factor, observed, groups, 20)
        assert_close(moved / factor - 3, expected)


def test_forecasts_are_sorted() -> None:
    quantiles = tiny_network().forecast(*window("groups"), 20)
    assert (quantiles.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize(("length", "horizon"), [(0, 5), (PATCH + 1, 5), (PATCH, 0)])
def test_a_context_of_broken_patches_is_refused(length: int, horizon: int) -> None:
    values, observed, groups = window("univariate")
    with pytest.raises(ValueError, match=f"positive multiple of {PATCH}"):
        tiny_network().forecast(values[..., :length], observed[..., :length], groups, horizon)


# Adapters.


def adapted(network: Toto2Network) -> nn.Module:
    """The network wrapped in LoRA layers with random B, as a trained one's are."""
    wrapped = lora.attach(network, SETTINGS, seed=0)
    generator = torch.Generator().manual_seed(5)
    weights = lora.adapter_weights(wrapped)
    drawn = {
        name: 0.1 * torch.randn(w.shape, generator=generator) if "lora_B" in name else w
        for name, w in weights.items()
    }
    lora.set_adapter_weights(wrapped, drawn)
    return wrapped


def knots_of(network: Toto2Network) -> Tensor:
    values, observed, groups = window("missing")
    return knots(network, values, observed, horizon_masks(values), groups)[0]


def test_an_adapter_wraps_each_layer_and_survives_storage(tmp_path: Path) -> None:
    network = tiny_network()
    plain = knots_of(network)
    wrapped = adapted(network)
    stored = lora.adapter_weights(wrapped)
    assert len(stored) == 2 * len(SETTINGS.targets) * TINY["num_layers"]
    lora.save(wrapped, stored, tmp_path)
    again = tiny_network()
    lora.load(again, tmp_path)
    assert torch.equal(knots_of(again), knots_of(network))
    assert (knots_of(network) - plain).abs().max() > 0.5


def test_a_merged_adapter_computes_what_it_did() -> None:
    network = tiny_network()
    plain = knots_of(network)
    wrapped = adapted(network)
    unmerged = knots_of(network)
    merged = wrapped.merge_and_unload()  # type: ignore[operator]  # peft's
    assert isinstance(merged.transformer.layers[0].attn.in_proj, nn.Linear)
    difference = (knots_of(merged) - unmerged).abs().max()
    assert 0 < difference <= 1e-5 * (unmerged - plain).abs().max()


def test_gradients_are_finite_differences() -> None:
    network = tiny_network().double()
    wrapped = adapted(network).double()
    values, observed, groups = window("missing")
    values, known = values.double(), horizon_masks(values)

    def loss() -> Tensor:
        units = knots(network, values, observed, known, groups)[0]
        return (units.square() * torch.linspace(-1, 1, 9)).mean()

    loss().backward()
    entries = [(n, p) for n, p in wrapped.named_parameters() if "lora_B" in n]
    assert len(entries) == 4 * TINY["num_layers"]
    for name, weight in entries:
        assert weight.grad is not None
        at = weight.grad.abs().argmax().item()  # largest, so that rounding weighs least
        flat, step = weight.detach().view(-1), 1e-6
        kept = flat[at].item()
        sides = []
        for sign in (1, -1):
            flat[at] = kept + sign * step
            sides.append(loss().item())
        flat[at] = kept
        slope = (sides[0] - sides[1]) / (2 * step)
        assert weight.grad.view(-1)[at].item() == pytest.approx(slope, rel=1e-5), name


# Precision.


def test_bfloat16_weights_give_float32_quantiles() -> None:
    network = tiny_network()
    exact = knots_of(network)
    rounded = knots_of(network.to(torch.bfloat16))
    assert rounded.dtype == torch.float32
    assert rounded.isfinite().all()
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.std()
    # The quantiles themselves are not rounded to bfloat16.
    assert not torch.equal(rounded, rounded.to(torch.bfloat16).float())


def test_quantiles_stay_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert knots_of(tiny_network()).dtype == torch.float32
