"""How many rows the sampler decodes at once, and on how many threads.

Neither changes a result on the CPU: a chunk is computed on one thread, and a row by the same
instructions whatever its chunk holds.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from retrain_assets.errors import RetrainError
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.memory import free_cached, is_out_of_memory

LEAST_ROWS = 16
MOST_ROWS = {"cpu": 1200, "cuda": 8192}
"""Beyond these more rows at once bring nothing: products run at full speed long before."""
_FREE_SHARE = 0.5
_FLOAT = 4

Task = TypeVar("Task")
Result = TypeVar("Result")


class RowBudget:
    """The most rows to decode at once; it halves when memory does not suffice after all.

    given: a limit set by hand; None chooses from the device's free memory.
    limit: what holds now.
    """

    def __init__(self, given: int | None = None) -> None:
        self._given = given
        self._proven = sys.maxsize  # half of what has been too much
        self.limit = given or sys.maxsize

    def rows(self, device: torch.device, *, bytes_per_row: int, threads: int) -> int:
        """Rows that fit into half of the device's free memory, for each of so many threads."""
        fitting = self._given
        if fitting is None:
            fitting = int(_FREE_SHARE * free_memory(device) / threads / bytes_per_row)
            fitting = min(max(fitting, LEAST_ROWS), MOST_ROWS.get(device.type, 1200))
        self.limit = min(fitting, self._proven)
        return self.limit

    def run(
        self, rows: NDArray[np.int64], decode: Callable[[NDArray[np.int64]], Result]
    ) -> list[Result]:
        """Decode rows (N,), in halves wherever the memory does not take them all.

        Raises RetrainError when it does not even take the fewest.
        """
        if len(rows) > self.limit:
            parts = np.array_split(rows, -(-len(rows) // self.limit))
            return [result for part in parts for result in self.run(part, decode)]
        try:
            return [decode(rows)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) <= LEAST_ROWS:
                raise RetrainError(
                    f"forecasting {len(rows)} paths does not fit into the device's memory: shorten "
                    "context_length, choose a smaller base, or free memory"
                ) from error
        # The exception holds the tensors of the failed attempt, so this stands outside of it.
        # Beside other workers this attempt may be an older, larger one than theirs.
        self.limit = self._proven = min(self._proven, len(rows) // 2)
        free_cached()
        return self.run(rows, decode)


def bytes_per_row(network: NetworkConfig, tokenizer: TokenizerConfig, steps: int) -> int:
    """Bytes a row takes at most: what each layer keeps of `steps` bars, and its activations."""
    widths = (network.n_layers + 1) * network.d_model
    widths += (tokenizer.n_dec_layers - 1) * tokenizer.d_model
    vocabulary = 2 ** max(network.s1_bits, network.s2_bits)
    activations = 8 * vocabulary + 8 * max(network.ff_dim, network.d_model)
    size: int = _FLOAT * (2 * widths * steps + activations)
    return size


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now; those of the machine where the device has none apart."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # what peft needs anyway

    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class Workers:
    """Maps a function over tasks, `size` at a time; results come in the tasks' order."""

    size: int
    map: Callable[[Callable[[Task], Result], Iterable[Task]], Iterable[Result]]


@contextlib.contextmanager
def workers(device: torch.device) -> Iterator[Workers]:
    """As many workers as torch has CPU threads, each on one thread; one for an accelerator.

    Chunks side by side share nothing and wait for nobody, where threads inside of each small
    product would; and what one thread computes does not depend on how many there are.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield Workers(1, map)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield Workers(threads, pool.map)
    finally:
        torch.set_num_threads(threads)
