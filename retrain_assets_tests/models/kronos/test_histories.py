"""Rows that agree share a history, and a history attends as if it had the whole sequence."""

import pytest
import torch

from retrain_assets.models.kronos.histories import SEGMENT, Histories, HistoryCache, Prefix
from retrain_assets.models.kronos.layers import causal_attention

CPU = torch.device("cpu")


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rows_with_equal_tokens_stay_together() -> None:
    drawn = torch.randint(0, 3, (40, 5), generator=torch.Generator().manual_seed(0))
    histories = Histories(40, CPU)
    for step in range(5):
        before, known = histories.row.clone(), histories.count
        parting = histories.part(drawn[:, step], 3)
        past = [tuple(tokens) for tokens in drawn[:, : step + 1].tolist()]
        assert histories.count == len(set(past))
        # Rows have the same number exactly when they have drawn the same tokens.
        assert len(set(zip(past, histories.row.tolist(), strict=True))) == histories.count
        assert torch.equal(parting.tokens[histories.row], drawn[:, step])
        # A new history goes on from the one its rows had; the others keep their number.
        assert (parting.first, len(parting.sources)) == (known, histories.count - known)
        for number, source in enumerate(parting.sources.tolist(), start=known):
            assert set(before[histories.row == number].tolist()) == {source}
        old = histories.row < known
        assert torch.equal(histories.row[old], before[old])


@pytest.mark.parametrize("steps", [1, 3, SEGMENT, 2 * SEGMENT + 3])
def test_a_history_attends_to_prefix_and_to_what_it_drew(steps: int) -> None:
    rows, heads, length, width = 5, 2, 10, 8
    prefix = Prefix(random(heads, length, width, seed=1), random(heads, length, width, seed=2))
    q, k, v = (random(rows, steps, heads, width, seed=s) for s in (3, 4, 5))
    cache = HistoryCache(prefix, histories=16)
    for step in range(steps):
        cache.add(k[:, step], v[:, step])
        got = cache.read(q[:, step] / width**0.5)
    keys, values = (
        torch.cat((shared.expand(rows, -1, -1, -1), own.transpose(1, 2)), dim=2)
        for shared, own in zip(prefix, (k, v), strict=True)
    )
    padded = torch.zeros(rows, heads, length + steps, width)
    padded[:, :, -1] = q[:, -1]
    expected = causal_attention(padded, keys, values)[:, :, -1]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_before_anything_is_drawn_the_prefix_alone_is_read() -> None:
    q, k, v = (random(2, 5, 8, seed=s) for s in (1, 2, 3))
    cache = HistoryCache(Prefix(k, v), histories=16)
    got = cache.read(q[:, -1:].transpose(0, 1) / 8**0.5)
    expected = causal_attention(q[None], k[None], v[None])[0, :, -1]
    torch.testing.assert_close(got[0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("before", [0, 2, SEGMENT + 1])
def test_a_branch_goes_on_from_its_source(before: int) -> None:
    heads, width = 2, 4
    prefix = Prefix(random(heads, 3, width, seed=1), random(heads, 3, width, seed=2))
    cache, alone = (HistoryCache(prefix, histories=16) for _ in range(2))
    own = random(before + 1, 2, 4, heads, width, seed=3)  # step, key or value, history
    for step in range(before):
        cache.add(own[step, 0, :2], own[step, 1, :2])
        alone.add(own[step, 0, [0, 1, 1, 0]], own[step, 1, [0, 1, 1, 0]])
    cache.branch(2, torch.tensor([1, 0]))
    q = random(4, heads, width, seed=4)
    for one in (cache, alone):
        one.add(own[before, 0], own[before, 1])
    assert torch.equal(cache.read(q), alone.read(q))
