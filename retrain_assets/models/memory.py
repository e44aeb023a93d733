"""What to do when a device's memory does not suffice: tell it from other errors, and take less.

Torch reports a failed allocation in several ways, depending on the device and on who asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from retrain_assets.errors import OutOfMemory

WINDOW = "one window"
"""The least that is trained on or forecast at once."""

Result = TypeVar("Result")

_WORDS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    On the CPU, and where a library of the card's needs room for itself, it is a RuntimeError like
    any other but for its words.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def free_cached() -> None:
    """Give back what torch keeps of a card's memory for later; nothing of it is in use."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def with_less(compute: Callable[[int], Result], at_once: int) -> tuple[Result, int]:
    """Compute so many items at once, or half, or half of that, until memory suffices.

    Returns the result and how many it was. The last error goes through when not even one fits.
    """
    while True:
        try:
            return compute(at_once), at_once
        except Exception as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        # The exception holds the tensors of the failed attempt, so this stands outside of it.
        at_once = (at_once + 1) // 2
        free_cached()


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """Raise OutOfMemory, with what to do, where memory does not suffice for the least there is.

    what: that least, in words.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutOfMemory(
            f"{what} does not fit into the device's memory ({reason}): choose a smaller base, "
            "or shorten --context-length or --prediction-length"
        ) from error
