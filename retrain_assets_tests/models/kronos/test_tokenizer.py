from typing import Any

import pytest
import torch

from retrain_assets.models.kronos.config import TokenizerConfig
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets_tests.models.kronos.cases import (
    TINY_TOKENIZER,
    TOKENIZERS,
    build_tokenizer,
    random_walk_values,
    upstream,
)


def twins(fields: dict[str, Any]) -> tuple[Any, KronosTokenizer]:
    """Upstream's tokenizer and ours with the same random weights."""
    torch.manual_seed(3)
    theirs = upstream().KronosTokenizer(**fields).eval()
    with torch.device("meta"):
        ours = KronosTokenizer(TokenizerConfig(**fields))
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return theirs, ours.eval()


def walks(*shape: int) -> torch.Tensor:
    return torch.from_numpy(random_walk_values(*shape))


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_weights_have_upstreams_names_shapes_and_buffers(kind: str) -> None:
    theirs = upstream().KronosTokenizer(**TOKENIZERS[kind]).state_dict()
    ours = build_tokenizer(TOKENIZERS[kind]).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in ours.items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }
    for name in ("tokenizer.bsq.basis", "tokenizer.bsq.group_basis"):
        assert torch.equal(ours[name], theirs[name])
    for name in ours:
        if name.endswith("inv_freq"):
            assert torch.equal(ours[name], theirs[name])


@pytest.mark.parametrize("kind", TOKENIZERS)
@torch.inference_mode()
def test_encoding_and_decoding_are_upstreams(kind: str) -> None:
    theirs, ours = twins(TOKENIZERS[kind])
    bars = walks(8, 96, 6)
    s1, s2 = ours.encode(bars)
    their_s1, their_s2 = theirs.encode(bars, half=True)
    assert torch.equal(s1, their_s1)
    assert torch.equal(s2, their_s2)
    assert s1.unique().numel() > 50
    assert (ours.decode(s1, s2) - theirs.decode([s1, s2], half=True)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_training_pass_and_gradients_are_upstreams(kind: str) -> None:
    theirs, ours = twins(TOKENIZERS[kind])
    bars = walks(2, 24, 6)
    (their_coarse, their_full), their_loss, _, _ = theirs(bars)
    coarse, full, loss = ours(bars)
    assert (coarse - their_coarse).abs().max() <= 1e-5
    assert (full - their_full).abs().max() <= 1e-5
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6)
    (their_coarse.square().mean() + their_full.square().mean() + their_loss).backward()
    (coarse.square().mean() + full.square().mean() + loss).backward()
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs_by_name[name].grad
        scale = expected.abs().max().clamp_min(1e-6)
        assert (parameter.grad - expected).abs().max() <= 1e-3 * scale, name


def test_bits_are_little_endian_and_of_unit_length() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER)
    bits = tokenizer.token_bits(torch.tensor([[0b00011]]), torch.tensor([[0b1000]]))
    signs = [1, 1, -1, -1, -1, *(-1, -1, -1, 1)]
    torch.testing.assert_close(bits, torch.tensor([[signs]]) / 3.0)


def test_every_token_survives_its_bits() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER)
    s1, s2 = torch.meshgrid(torch.arange(32), torch.arange(16), indexing="ij")
    bits = tokenizer.token_bits(s1, s2) > 0
    assert torch.equal((bits[..., :5] * 2 ** torch.arange(5)).sum(-1), s1)
    assert torch.equal((bits[..., 5:] * 2 ** torch.arange(4)).sum(-1), s2)


def test_certain_logits_decode_as_their_tokens() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER)
    s1, s2 = torch.randint(0, 32, (2, 7)), torch.randint(0, 16, (2, 7))
    certain = [
        torch.full((2, 7, size), -1e9).scatter_(-1, tokens[..., None], 0.0)
        for tokens, size in ((s1, 32), (s2, 16))
    ]
    bits = tokenizer.expected_bits(*certain)
    assert torch.equal(bits, tokenizer.token_bits(s1, s2))
    assert torch.equal(tokenizer.decode_bits(bits), tokenizer.decode(s1, s2))


def test_expected_bits_are_the_mean_over_tokens() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER)
    s1_logits, s2_logits = torch.randn(32), torch.randn(16)
    bits = tokenizer.token_bits(
        torch.arange(32)[:, None].expand(32, 16), torch.arange(16).expand(32, 16)
    )  # (32, 16, C)
    weights = s1_logits.softmax(0)[:, None] * s2_logits.softmax(0)
    mean = (weights[..., None] * bits).sum(dim=(0, 1))
    torch.testing.assert_close(tokenizer.expected_bits(s1_logits, s2_logits), mean)


def test_a_decoded_close_moves_the_logits() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER).requires_grad_(False)
    logits = [torch.randn(1, 3, size, requires_grad=True) for size in (32, 16)]
    tokenizer.decode_bits(tokenizer.expected_bits(*logits))[..., 3].sum().backward()
    for one in logits:
        assert one.grad is not None
        assert one.grad.any()


def test_encoding_and_decoding_are_causal() -> None:
    tokenizer = build_tokenizer(TINY_TOKENIZER)
    bars = walks(1, 20, 6)
    changed = bars.clone()
    changed[:, 12:] += 1
    for one, two in zip(tokenizer.encode(bars), tokenizer.encode(changed), strict=True):
        assert torch.equal(one[:, :12], two[:, :12])
    s1, s2 = tokenizer.encode(bars)
    other = tokenizer.decode(s1, (s2 + (torch.arange(20) >= 12)) % 16)
    assert torch.equal(tokenizer.decode(s1, s2)[:, :12], other[:, :12])


def test_a_few_steps_of_training_reconstruct_better() -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TINY_TOKENIZER).train()
    bars = walks(16, 32, 6)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        coarse, full, bsq_loss = tokenizer(bars)
        error = (coarse - bars).square().mean() + (full - bars).square().mean()
        optimizer.zero_grad()
        (error + bsq_loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.6 * errors[0]
