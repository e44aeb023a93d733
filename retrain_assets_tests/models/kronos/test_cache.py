import pytest
import torch

from retrain_assets.models.kronos.cache import PrefixCache, RowCache
from retrain_assets.models.kronos.layers import causal_attention


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [4], [1, 3], [2, 2]])
def test_rows_attend_as_if_each_had_the_whole_sequence(sizes: list[int]) -> None:
    groups, rows, heads, width, length = 3, 4, 2, 8, 10
    total = groups * rows
    prefix = [random(groups, heads, length, width, seed=s) for s in (1, 2, 3)]
    own = [random(total, heads, sum(sizes), width, seed=s) for s in (4, 5, 6)]
    whole = [
        torch.cat((p.repeat_interleave(rows, dim=0), o), dim=2)
        for p, o in zip(prefix, own, strict=True)
    ]
    expected = causal_attention(*whole)[:, :, length:]

    cache = RowCache(prefix[1], prefix[2], rows=rows, size=sum(sizes))
    got, first = [], 0
    for size in sizes:
        q, k, v = (o[:, :, first : first + size] for o in own)
        got.append(cache.attend(q, k, v))
        first += size
    torch.testing.assert_close(torch.cat(got, dim=2), expected, atol=1e-6, rtol=1e-5)


def test_without_own_positions_a_row_reads_the_prefix() -> None:
    prefix = [random(2, 2, 5, 8, seed=s) for s in (1, 2, 3)]
    cache = RowCache(prefix[1], prefix[2], rows=1, size=3)
    got = cache.read(prefix[0][:, :, -1:])
    expected = causal_attention(*prefix)[:, :, -1:]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_a_prefix_cache_keeps_what_it_was_given() -> None:
    q, k, v = (random(1, 2, 5, 8, seed=s) for s in (1, 2, 3))
    cache = PrefixCache()
    assert torch.equal(cache.attend(q, k, v), causal_attention(q, k, v))
    assert torch.equal(cache.keys, k)
    assert torch.equal(cache.values, v)
