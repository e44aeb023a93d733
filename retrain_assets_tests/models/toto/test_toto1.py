"""Toto 1 computes what the official package computes, and nothing looks ahead."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from retrain_assets.errors import CheckpointError
from retrain_assets.models import lora
from retrain_assets.models.checkpoint_folders import check_weights, stored_weights
from retrain_assets.models.toto.toto1 import (
    MixtureParameters,
    Toto1Network,
    causal_scaling,
    official_names,
)
from retrain_assets.models.toto.toto1_config import Toto1Config
from retrain_assets_tests.models.toto.toto1_cases import (
    PUBLISHED,
    SHAPES,
    TINY,
    build,
    sharpen,
    walks,
)

TARGETS = ("wQKV", "wO", "mlp.0", "mlp.2")


@pytest.fixture(scope="module")
def official() -> Any:
    """Upstream's classes; the test skips, and says so, where they are not installed."""
    why = "the official package (toto-ts) is not installed: no parity test"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        toto = pytest.importorskip("toto.model.toto", reason=why)
        forecaster = pytest.importorskip("toto.inference.forecaster", reason=why)
    return SimpleNamespace(
        Toto=toto.Toto,
        Forecaster=forecaster.TotoForecaster,
        Series=forecaster.MaskedTimeseries,
    )


def twins(official: Any, fields: dict[str, Any]) -> tuple[Any, Toto1Network]:
    """Upstream's network and ours with the same random weights."""
    torch.manual_seed(3)
    theirs = official.Toto(**fields).eval()
    sharpen(theirs)
    with torch.device("meta"):
        ours = Toto1Network(Toto1Config.from_json(fields, "fields"))
    ours.load_state_dict(official_names(theirs.state_dict()), strict=True, assign=True)
    return theirs, ours.eval()


@dataclass(frozen=True)
class Case:
    """Series (B, V, T) as upstream is given them, raw zeros where nothing was observed."""

    values: Tensor
    observed: Tensor
    groups: Tensor


def case(kind: str, patch: int, *, patches: int = 9) -> Case:
    draw = torch.Generator().manual_seed(5)
    batch, variates = 3, 1 if kind == "univariate" else 5
    values = walks(batch, variates, patches * patch)
    observed = torch.ones_like(values, dtype=torch.bool)
    groups = torch.zeros(batch, variates, dtype=torch.int64)
    if kind == "groups":
        groups = torch.tensor([[0, 0, 0, 0, 0], [1, 2, 1, 2, 7], [0, 1, 2, 3, 4]])
    if kind == "padded":
        observed[0, :, : patch // 2] = observed[1, 0, : 2 * patch + 3] = False
    if kind == "missing":
        observed &= torch.rand(observed.shape, generator=draw) > 0.2
        observed[:, 1, 3 * patch : 5 * patch] = False
    return Case(values * observed, observed, groups)


KINDS = ["univariate", "multivariate", "groups", "padded", "missing"]


def upstreams(theirs: Any, given: Case, patch: int) -> tuple[MixtureParameters, Tensor, Tensor]:
    """Upstream's parameters in our shapes, with probabilities for log weights; loc and scale."""
    ids = given.groups[..., None].expand_as(given.values)
    mixture, loc, scale = theirs.model(given.values, given.observed, ids)
    parts = mixture.component_distribution
    flat = (parts.df, parts.loc, parts.scale, mixture.mixture_distribution.probs)
    shaped = [torch.unflatten(x, 2, (-1, patch)) for x in flat]
    return MixtureParameters(*shaped), loc[..., ::patch], scale[..., ::patch]


def largest_gap(ours: MixtureParameters, theirs: MixtureParameters) -> float:
    pairs = zip((*ours[:3], ours.log_weight.exp()), theirs, strict=True)
    return max((one - two).abs().max().item() for one, two in pairs)


def test_weights_have_upstreams_names_and_shapes(official: Any) -> None:
    with torch.device("meta"):
        theirs = official_names(official.Toto(**PUBLISHED).state_dict())
        ours = Toto1Network(Toto1Config.from_json(PUBLISHED, "fields")).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }


def test_the_parameter_count_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Toto1Network(Toto1Config.from_json(PUBLISHED, "fields"))
    assert sum(p.numel() for p in network.parameters()) == 151_306_080
    assert not list(network.buffers())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_mixtures_are_upstreams(official: Any, shape: str, kind: str) -> None:
    patch = SHAPES[shape]["patch_size"]
    theirs, ours = twins(official, SHAPES[shape])
    given = case(kind, patch)
    wanted, loc, scale = upstreams(theirs, given, patch)
    scaled = ours.scaled(given.values, given.observed)
    torch.testing.assert_close(scaled.loc, loc, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled.scale, scale, rtol=1e-6, atol=0)
    assert largest_gap(ours(scaled.values, given.groups), wanted) <= 5e-6


@pytest.mark.parametrize("shape", ["tiny", "space first"])
@torch.no_grad()
def test_dropout_in_training_is_upstreams(official: Any, shape: str) -> None:
    theirs, ours = twins(official, SHAPES[shape])
    given = case("groups", 8)
    scaled = ours.scaled(given.values, given.observed)
    still = ours(scaled.values, given.groups)
    theirs.train(), ours.train()
    torch.manual_seed(11)
    wanted = upstreams(theirs, given, 8)[0]
    torch.manual_seed(11)
    moving = ours(scaled.values, given.groups)
    assert largest_gap(moving, wanted) <= 5e-6
    assert not torch.equal(moving.mean, still.mean)


@pytest.mark.parametrize("xformers", [False, True])
@torch.inference_mode()
def test_published_files_are_read(official: Any, tmp_path: Path, xformers: bool) -> None:
    theirs = twins(official, TINY)[0]
    weights = dict(theirs.state_dict())
    weights["model.transformer.rotary_emb.freqs"] = torch.ones(8)  # in files of older versions
    if xformers:
        weights = {
            name.replace(".mlp.0.", ".mlp.0.w12.").replace(".mlp.2.", ".mlp.0.w3."): weight
            for name, weight in weights.items()
        }
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY))

    network = Toto1Network(Toto1Config.read(tmp_path / "config.json")).eval()
    stored, source = stored_weights(tmp_path)
    found = official_names(stored)
    check_weights(network.state_dict(), found, source)
    network.load_state_dict(found)

    given = case("groups", 8)
    wanted = upstreams(official.Toto.load_from_checkpoint(tmp_path).eval(), given, 8)[0]
    scaled = network.scaled(given.values, given.observed)
    assert largest_gap(network(scaled.values, given.groups), wanted) <= 5e-6


def test_names_keep_what_they_do_not_know_and_refuse_doubles() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    found = official_names({"model.target_variate_label": one, "unembed.bias": two})
    assert found.keys() == {"target_variate_label", "unembed.bias"}
    layer = "model.transformer.layers.0.mlp.0"
    with pytest.raises(CheckpointError, match=r"mlp\.0\.w12\.bias' is there twice"):
        official_names({f"{layer}.bias": one, f"{layer}.w12.bias": two})


def mean_of(parameters: MixtureParameters) -> Tensor:
    return (parameters.log_weight.exp() * parameters.mean).sum(-1)  # (B, V, M, P)


@torch.inference_mode()
def test_the_last_output_is_the_next_patch_as_upstream_forecasts_it(official: Any) -> None:
    theirs, ours = twins(official, SHAPES["space first"])
    given = case("groups", 8)
    values, observed, cache = given.values, given.observed, ours.cache()
    for _ in range(3):  # upstream feeds the mean back
        scaled = ours.scaled(values, observed)
        new = scaled.values[..., cache.length * 8 :]
        hidden = ours.hidden(new, given.groups, cache)[:, :, -1:]
        step = mean_of(ours.mixture(hidden))[:, :, 0]
        step = step * scaled.scale[..., -1:] + scaled.loc[..., -1:]
        values = torch.cat((values, step), dim=-1)
        observed = torch.cat((observed, torch.ones_like(step, dtype=torch.bool)), dim=-1)

    series = official.Series(
        series=given.values,
        padding_mask=given.observed,
        id_mask=given.groups[..., None].expand_as(given.values),
        timestamp_seconds=torch.zeros_like(given.values, dtype=torch.int64),
        time_interval_seconds=torch.ones_like(given.groups),
    )
    forecast = official.Forecaster(theirs.model).forecast(series, 24, use_kv_cache=False)
    torch.testing.assert_close(values[..., -24:], forecast.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_no_output_depends_on_later_patches(training: bool) -> None:
    network = build(SHAPES["space first"] | {"dropout": 0.0}).train(training)
    given = case("missing", 8)

    def outputs(values: Tensor) -> tuple[Tensor, ...]:
        scaled = network.scaled(values, given.observed)
        units = torch.unflatten(scaled.values, -1, (-1, 8))
        return (units, scaled.loc, scaled.scale, *network(scaled.values, given.groups))

    before = outputs(given.values)
    for j in (1, 4, 8):
        other = given.values.clone()
        other[..., 8 * j :] *= 1.2
        for one, two in zip(before, outputs(other), strict=True):
            assert torch.equal(one[:, :, :j], two[:, :, :j])
            assert (one[:, :, j] != two[:, :, j]).any()


def test_scaling_is_the_past_s_mean_and_deviation() -> None:
    values = torch.tensor([[[1.0, 3.0, 5.0, 9.0, 7.0, 7.0]]])
    observed = torch.tensor([[[True, True, True, False, True, True]]])
    scaled = causal_scaling(values, observed, 2)
    assert scaled.loc.flatten().tolist() == pytest.approx([2, 3, 4.6])
    # Of 1, 3; of 1, 3, 5; and of 1, 3, 5, 7, 7, with the floor on the variance.
    assert scaled.scale.square().flatten().tolist() == pytest.approx([2.1, 4.1, 6.8 + 0.1])
    assert scaled.values[0, 0, 3] == pytest.approx(6 / 4.1**0.5)
    assert not scaled.scale.requires_grad


def test_scaling_before_anything_was_observed_and_of_huge_numbers() -> None:
    values = torch.tensor([[[0.0, 0.0, 1e9, 1e9 + 64]]])
    observed = torch.tensor([[[False, False, True, True]]])
    scaled = causal_scaling(values, observed, 2)
    assert scaled.loc.flatten().tolist() == [0, 1e9]  # the nearest single to 1e9 + 32
    assert scaled.scale.flatten().tolist() == pytest.approx([0.1**0.5, (2 * 32**2 + 0.1) ** 0.5])


def test_steps_are_whole_patches() -> None:
    network = build()
    values = walks(1, 1, 12)
    with pytest.raises(ValueError, match="12 steps are no whole number of patches of 8"):
        network.scaled(values, values > -999)
    with pytest.raises(ValueError, match="12 steps"):
        network.hidden(values, torch.zeros(1, 1, dtype=torch.int64))


@torch.inference_mode()
def test_variates_see_their_group_alone() -> None:
    network = build()
    given = case("groups", 8)
    before = network.hidden(network.scaled(given.values, given.observed).values, given.groups)
    other = given.values.clone()
    other[:, 0] += walks(3, 1, 72, seed=9)[:, 0]
    after = network.hidden(network.scaled(other, given.observed).values, given.groups)
    moved = (before != after).flatten(2).any(-1)
    assert torch.equal(moved, given.groups == given.groups[:, :1])


@torch.inference_mode()
def test_mixtures_of_some_positions_are_those_of_all() -> None:
    network = build()
    given = case("multivariate", 8)
    hidden = network.hidden(network.scaled(given.values, given.observed).values, given.groups)
    whole, last = network.mixture(hidden), network.mixture(hidden[:, :, -2:])
    for one, two in zip(whole, last, strict=True):
        assert one.shape == (3, 5, 9, 8, 4)
        torch.testing.assert_close(one[:, :, -2:], two, atol=1e-6, rtol=1e-6)
    assert (whole.df >= 2).all()
    assert (whole.scale > 0).all()
    torch.testing.assert_close(whole.log_weight.exp().sum(-1), torch.ones(3, 5, 9, 8))


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_paths_continue_from_their_windows_cache(shape: str) -> None:
    network, patch = build(SHAPES[shape]), SHAPES[shape]["patch_size"]
    given, paths = case("groups", patch), 4
    groups = given.groups.repeat_interleave(paths, 0)
    context = network.scaled(given.values, given.observed).values
    cache = network.cache()
    hidden = network.hidden(context, given.groups, cache)
    assert torch.equal(hidden, network.hidden(context, given.groups))
    assert cache.length == 9

    fork = cache
    for seed in (1, 2):  # two draws from one window, the second forgets the first
        drawn = walks(3 * paths, 5, 4 * patch, seed=seed) / 10
        series = torch.cat((context.repeat_interleave(paths, 0), drawn), dim=-1)
        whole = network.mixture(network.hidden(series, groups)[:, :, 9:])
        fork = fork.fork()
        pieces = (drawn[..., :patch], drawn[..., patch : 3 * patch], drawn[..., 3 * patch :])
        parts = [network.hidden(piece, groups, fork) for piece in pieces]
        for one, two in zip(network.mixture(torch.cat(parts, dim=2)), whole, strict=True):
            assert (one - two).abs().max() <= 1e-5
        assert (fork.length, cache.length) == (13, 9)


def test_every_weight_gets_a_gradient() -> None:
    network = build(SHAPES["space first"])
    given = case("groups", 8)
    outputs = network(network.scaled(given.values, given.observed).values, given.groups)
    sum(x.square().mean() for x in outputs).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_adapters_train_are_stored_and_can_be_merged(tmp_path: Path) -> None:
    given = case("groups", 8)
    settings = lora.LoraSettings(rank=4, alpha=8, dropout=0.0, targets=TARGETS)
    wrapped = lora.attach(build().requires_grad_(False), settings, seed=1)
    scaled = wrapped.scaled(given.values, given.observed).values
    bare = build()(scaled, given.groups).mean
    assert torch.equal(wrapped(scaled, given.groups).mean, bare)

    draw = torch.Generator().manual_seed(2)
    for weight in lora.trainable(wrapped):
        weight.data += 0.1 * torch.randn(weight.shape, generator=draw)
    sum(x.square().mean() for x in wrapped(scaled, given.groups)).backward()
    graded = [name for name, p in wrapped.named_parameters() if p.grad is not None and p.grad.any()]
    assert len(graded) == 2 * len(TARGETS) * TINY["num_layers"]
    assert all("lora_" in name for name in graded)

    lora.save(wrapped, lora.adapter_weights(wrapped), tmp_path)
    again = lora.load(build().requires_grad_(False), tmp_path)
    with torch.inference_mode():
        adapted, reloaded = wrapped(scaled, given.groups), again(scaled, given.groups)
        merged = again.merge_and_unload()(scaled, given.groups)
    for one, two, three in zip(adapted, reloaded, merged, strict=True):
        assert torch.equal(one, two)
        assert (one - three).abs().max() <= 1e-5
    assert (adapted.mean - bare).abs().max() > 0.1


@torch.inference_mode()
def test_mixtures_of_low_precision_are_single_and_near() -> None:
    given = case("groups", 8)
    exact, low = build(), build().bfloat16()
    scaled = exact.scaled(given.values, given.observed).values
    wanted = exact(scaled, given.groups)
    with torch.autocast("cpu", torch.bfloat16):
        under = exact(scaled, given.groups)
        fork, cache = exact.cache(), low.cache()
        exact.hidden(scaled, given.groups, fork)
        assert exact.hidden(scaled, given.groups, fork).isfinite().all()
    low.hidden(scaled, given.groups, cache)
    assert low.hidden(scaled, given.groups, cache).dtype == torch.bfloat16
    for found in (low(scaled, given.groups), under):
        assert {x.dtype for x in found} == {torch.float32}
        assert all(x.isfinite().all() for x in found)
        assert largest_gap(found, wanted._replace(log_weight=wanted.log_weight.exp())) < 0.3


def test_heads_are_computed_in_single_precision() -> None:
    low = build().bfloat16()
    steps = torch.randn(5, 32, dtype=torch.bfloat16)
    wide = build().bfloat16().float().output_distribution(steps.float())
    for one, two in zip(low.output_distribution(steps), wide, strict=True):
        assert torch.equal(one, two)
