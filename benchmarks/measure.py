"""Seconds, processor seconds and memory of a piece of work, and what the device itself reaches."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

SAMPLING_S = 0.005


@dataclass(frozen=True)
class Measured:
    """What one run took. peak_mb: most memory held beyond what was held before it."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def measured(work: Callable[[], object], device: torch.device) -> Measured:
    """Run once, waiting for the device."""
    with _peak(device) as peak:
        cpu = time.process_time()
        seconds = timed(work, device)
        cpu = time.process_time() - cpu
    return Measured(seconds, cpu, peak())


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run, waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_rate(device: torch.device) -> float:
    """What the card reaches in one large bf16 matrix product, in FLOP/s."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    seconds = statistics.median(timed(lambda: a @ a, device) for _ in range(10))
    return 2 * 8192**3 / seconds


def copy_rate(device: torch.device) -> float:
    """What the card reaches in copying one large tensor, read and written, in bytes/s."""
    a = torch.empty(2**30, device=device, dtype=torch.uint8)
    b = torch.empty_like(a)
    for _ in range(3):
        b.copy_(a)
    seconds = statistics.median(timed(lambda: b.copy_(a), device) for _ in range(10))
    return 2 * a.numel() / seconds


@contextmanager
def _peak(device: torch.device) -> Iterator[Callable[[], float]]:
    """Megabytes held at most in the block beyond those held at its start; ask after the block."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield lambda: (torch.cuda.max_memory_allocated(device) - before) / 1e6
        return
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(SAMPLING_S):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: (max(seen) - seen[0]) / 1e6
    finally:
        done.set()
        watcher.join()
