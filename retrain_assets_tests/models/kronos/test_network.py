from typing import Any

import pytest
import torch

from retrain_assets.models.kronos.config import NetworkConfig
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets_tests.models.kronos.cases import (
    NETWORKS,
    TINY_NETWORK,
    build_network,
    random_inputs,
    upstream,
)

DROPOUTS = ("ffn", "attn", "resid", "token")
SIZES = ["mini", "small", pytest.param("base", marks=pytest.mark.long)]


def twins(fields: dict[str, Any]) -> tuple[Any, KronosNetwork]:
    """Upstream's network and ours with the same random weights."""
    torch.manual_seed(3)
    theirs = upstream().Kronos(**fields).eval()
    with torch.device("meta"):
        ours = KronosNetwork(NetworkConfig(**fields))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return theirs, ours.eval()


@pytest.mark.parametrize("size", NETWORKS)
def test_weights_have_upstreams_names_and_shapes(size: str) -> None:
    with torch.device("meta"):
        theirs = upstream().Kronos(**NETWORKS[size]).state_dict()
        ours = KronosNetwork(NetworkConfig(**NETWORKS[size])).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }


@pytest.mark.parametrize(
    ("size", "parameters"), [("mini", 4_108_032), ("small", 24_741_376), ("base", 102_310_592)]
)
def test_parameter_counts_are_the_published_ones(size: str, parameters: int) -> None:
    with torch.device("meta"):
        network = KronosNetwork(NetworkConfig(**NETWORKS[size]))
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("size", SIZES)
@torch.inference_mode()
def test_logits_are_upstreams(size: str) -> None:
    theirs, ours = twins(NETWORKS[size])
    s1, s2, stamps = random_inputs(NETWORKS[size], batch=3, length=48)
    following = random_inputs(NETWORKS[size], batch=3, length=48, seed=1)[0]
    their_s1, context = theirs.decode_s1(s1, s2, stamps)
    s1_logits, s2_logits = ours(s1, s2, stamps, following)
    assert (s1_logits - their_s1).abs().max() <= 1e-5
    for t in (0, 20, 47):  # upstream forecasts from the last position of what it is given
        their_s2 = theirs.decode_s2(context[:, : t + 1], following[:, t, None])
        assert (s2_logits[:, t] - their_s2[:, -1]).abs().max() <= 1e-5


@torch.inference_mode()
def test_fixed_time_embeddings_are_read_from_upstreams_file() -> None:
    fields = TINY_NETWORK | {"learn_te": False}
    theirs, ours = twins(fields)
    s1, s2, stamps = random_inputs(fields, batch=2, length=9)
    assert (ours.hidden(s1, s2, stamps) - theirs.decode_s1(s1, s2, stamps)[1]).abs().max() <= 1e-5
    assert not ours.time_emb.get_submodule("day_embed.emb").weight.requires_grad


@pytest.mark.parametrize("training", [False, True])
def test_no_logits_depend_on_later_tokens(training: bool) -> None:
    network = build_network(TINY_NETWORK | {f"{x}_dropout_p": 0.0 for x in DROPOUTS})
    network.train(training)
    s1, s2, stamps = random_inputs(TINY_NETWORK, batch=2, length=12)
    following = s1.roll(-1, dims=1)
    before = network(s1, s2, stamps, following)
    for t in (1, 6, 11):
        other = [x.clone() for x in (s1, s2, stamps, following)]
        other[0][:, t:] = (s1[:, t:] + 1) % 32
        other[1][:, t:] = (s2[:, t:] + 1) % 16
        other[2][:, t:] = (stamps[:, t:] + 1) % 7
        other[3][:, t:] = (following[:, t:] + 1) % 32
        after = network(*other)
        for one, two in zip(before, after, strict=True):
            assert torch.equal(one[:, :t], two[:, :t])
            assert (one[:, t:] != two[:, t:]).any()


def test_s2_depends_on_the_coarse_token_it_follows() -> None:
    network = build_network(TINY_NETWORK)
    s1, s2, stamps = random_inputs(TINY_NETWORK, batch=1, length=6)
    hidden = network.hidden(s1, s2, stamps)
    one = network.s2_logits(hidden, s1)
    two = network.s2_logits(hidden, (s1 + 1) % 32)
    # The coarse token only steers attention, and the first position has nothing to choose.
    assert torch.equal(one[:, 0], two[:, 0])
    assert (one != two).any(dim=-1)[:, 1:].all()


def test_dropout_acts_in_training_alone() -> None:
    network = build_network(TINY_NETWORK)
    s1, s2, stamps = random_inputs(TINY_NETWORK, batch=1, length=6)
    still = [network(s1, s2, stamps, s1)[0] for _ in range(2)]
    network.train()
    moving = [network(s1, s2, stamps, s1)[0] for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*moving)


def test_every_weight_gets_a_gradient() -> None:
    network = build_network(TINY_NETWORK)
    s1, s2, stamps = random_inputs(TINY_NETWORK, batch=2, length=6)
    s1_logits, s2_logits = network(s1, s2, stamps, s1)
    (s1_logits.square().mean() + s2_logits.square().mean()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["dep_layer.cross_attn.k_proj.bias"] or without == []


def test_a_start_shifts_positions_but_relative_attention_stays() -> None:
    network = build_network(TINY_NETWORK)
    s1, s2, stamps = random_inputs(TINY_NETWORK, batch=1, length=8)
    near, far = network.hidden(s1, s2, stamps), network.hidden(s1, s2, stamps, start=100)
    assert not torch.equal(near, far)
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)
