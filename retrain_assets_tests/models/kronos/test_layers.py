import math

import torch

from retrain_assets.models.kronos.cache import PrefixCache, RowCache
from retrain_assets.models.kronos.layers import (
    Block,
    RMSNorm,
    Rotary,
    join_heads,
    run_blocks,
    split_heads,
)


def test_rms_norm_is_computed_in_single_precision() -> None:
    norm = RMSNorm(64)
    x = torch.full((1, 64), 300.0, dtype=torch.float16)  # its square is no float16
    assert norm.half()(x).tolist() == [[1.0] * 64]


def test_rotation_is_by_position_and_keeps_distances() -> None:
    rotary = Rotary(16)
    q, k = torch.randn(2, 1, 1, 10, 16).unbind(0)
    whole_q, whole_k = rotary(q, k, 0)
    part_q, part_k = rotary(q[..., 6:, :], k[..., 6:, :], 6)
    assert torch.equal(part_q, whole_q[..., 6:, :])
    assert torch.equal(part_k, whole_k[..., 6:, :])
    assert torch.equal(whole_q[..., 0, :], q[..., 0, :])
    far_q, far_k = rotary(q, k, 50)
    torch.testing.assert_close(far_q @ far_k.mT, whole_q @ whole_k.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole_q.norm(dim=-1), q.norm(dim=-1))


def test_rotation_turns_pairs_of_half_a_head() -> None:
    rotary = Rotary(4)
    x = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    turned, _ = rotary(x, x, 1)
    # Pairs are (0, 2) and (1, 3); the first turns by one radian a position.
    torch.testing.assert_close(turned, torch.tensor([[math.cos(1), 0.0, math.sin(1), 0.0]]))


def test_heads_are_split_and_joined() -> None:
    x = torch.arange(24.0).view(1, 2, 12)
    split = split_heads(x, 3)
    assert split.shape == (1, 3, 2, 4)
    assert split[0, 1, 0].tolist() == [4, 5, 6, 7]
    assert torch.equal(join_heads(split), x)


@torch.inference_mode()
def test_blocks_continue_from_their_caches() -> None:
    torch.manual_seed(0)
    rates = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
    blocks = [Block(16, 2, 24, **rates).eval() for _ in range(2)]
    context, rows = torch.randn(1, 9, 16), torch.randn(3, 4, 16)
    whole = run_blocks(blocks, torch.cat((context.expand(3, -1, -1), rows), dim=1))
    prefixes = [PrefixCache() for _ in blocks]
    first = run_blocks(blocks, context, caches=prefixes)
    torch.testing.assert_close(first.expand(3, -1, -1), whole[:, :9], atol=1e-6, rtol=1e-5)
    caches = [RowCache(p.keys, p.values, rows=3, size=4) for p in prefixes]
    steps = [run_blocks(blocks, rows[:, i, None], start=9 + i, caches=caches) for i in range(4)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole[:, 9:], atol=1e-6, rtol=1e-5)
