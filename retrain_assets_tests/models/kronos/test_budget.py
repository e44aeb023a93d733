"""How many rows are decoded at once: bounded by memory, halved when that does not suffice."""

import numpy as np
import pytest
import torch

from retrain_assets.errors import RetrainError
from retrain_assets.models.kronos.budget import (
    LEAST_ROWS,
    MOST_ROWS,
    RowBudget,
    bytes_per_row,
    free_memory,
    workers,
)
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets_tests.models.kronos.cases import NETWORKS, TOKENIZERS

CPU = torch.device("cpu")
ROWS = np.arange(100)


def limited(most: int, error: BaseException, sizes: list[int]):  # type: ignore[no-untyped-def]
    """A decoder that runs out of memory with more than `most` rows, and notes what it took."""

    def decode(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        if len(rows) > most:
            raise error
        return rows

    return decode


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_rows_that_do_not_fit_are_decoded_in_halves(error: BaseException) -> None:
    budget, sizes = RowBudget(), list[int]()
    done = np.concatenate(budget.run(ROWS, limited(30, error, sizes)))
    assert np.array_equal(done, ROWS)
    assert sizes[:3] == [100, 50, 50] or sizes[:3] == [100, 50, 25]
    assert max(sizes[2:]) <= 50
    # What has been learned is kept: the next chunk is cut before it is tried.
    sizes.clear()
    budget.run(ROWS, limited(30, error, sizes))
    assert max(sizes) <= 30


def test_another_error_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        RowBudget().run(ROWS, limited(30, RuntimeError("shapes differ"), []))


def test_when_not_even_the_fewest_fit_the_error_says_what_to_do() -> None:
    sizes = list[int]()
    with pytest.raises(RetrainError, match="shorten context_length"):
        RowBudget().run(ROWS, limited(0, MemoryError(), sizes))
    assert min(sizes) >= LEAST_ROWS / 2


def test_a_limit_by_hand_is_kept() -> None:
    budget, sizes = RowBudget(8), list[int]()
    assert budget.rows(CPU, bytes_per_row=1, threads=1) == 8
    budget.run(ROWS, limited(100, MemoryError(), sizes))
    assert max(sizes) <= 8
    assert sum(sizes) == 100


def test_rows_fit_into_half_of_what_is_free() -> None:
    free = free_memory(CPU)
    per_row = free // 400
    assert 90 <= RowBudget().rows(CPU, bytes_per_row=per_row, threads=2) <= 110
    assert RowBudget().rows(CPU, bytes_per_row=1, threads=1) == MOST_ROWS["cpu"]
    assert RowBudget().rows(CPU, bytes_per_row=free, threads=4) == LEAST_ROWS


def test_the_limit_follows_what_a_row_takes_and_what_has_failed() -> None:
    budget, per_row = RowBudget(), free_memory(CPU) // 400
    longer, shorter = (budget.rows(CPU, bytes_per_row=n * per_row, threads=2) for n in (2, 1))
    assert longer < shorter == budget.limit
    budget.run(ROWS, limited(30, MemoryError(), []))
    assert budget.rows(CPU, bytes_per_row=1, threads=1) == budget.limit <= 30


def test_a_longer_horizon_and_a_larger_model_take_more() -> None:
    tokenizer = TokenizerConfig(**TOKENIZERS["base"])
    mini, base = (NetworkConfig(**NETWORKS[size]) for size in ("mini", "base"))
    assert bytes_per_row(mini, tokenizer, 64) > bytes_per_row(mini, tokenizer, 7)
    # Keys and values of 13 layers of 832 and 3 of 256, 4 bytes each, for 64 bars.
    assert bytes_per_row(base, tokenizer, 64) >= 2 * 4 * 64 * (13 * 832 + 3 * 256)


def test_workers_run_on_one_thread_each_and_leave_the_number_as_it_was() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with workers(CPU) as team:
            assert team.size == 2
            assert list(team.map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), workers(CPU):
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
