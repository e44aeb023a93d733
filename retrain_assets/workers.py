"""Several stocks at a time: each slot is a process that runs one stock after the other.

Small models do not gain from a second CPU thread what a second stock gains from a second core.
Progress comes back through a queue, so the caller's listeners see what they see for one process.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.defs.progress import LOGGER
from retrain_assets.runs import Options, Outcome, run_stocks

if TYPE_CHECKING:
    import dagster as dg

_definitions: dg.Definitions
"""Set once in every worker process, by `_start`."""


def run_side_by_side(
    home: Path,
    symbols: Sequence[str],
    month: str,
    options: Options,
    *,
    device: str,
    jobs: int,
    listener: logging.Handler,
) -> Iterator[Outcome]:
    """Run up to `jobs` stocks at a time and yield each outcome as it comes.

    home: the data folder. listener: receives the progress records of all processes. A process
    that dies costs the stock it was running, whose next run goes on from its last checkpoint.
    """
    context = multiprocessing.get_context("spawn")
    queue: Queue[logging.LogRecord] = context.Queue()
    relay = logging.handlers.QueueListener(queue, listener)

    def new_slot() -> ProcessPoolExecutor:
        # One process a pool: when it dies, no other stock's process is given up with it.
        return ProcessPoolExecutor(1, context, _start, (queue, home, device))

    waiting, running = deque(symbols), dict[Future[Outcome], tuple[str, ProcessPoolExecutor]]()
    idle = [new_slot() for _ in range(min(jobs, len(symbols)))]
    relay.start()
    try:
        while waiting or running:
            while waiting and idle:
                symbol, slot = waiting.popleft(), idle.pop()
                running[slot.submit(_run_one, symbol, month, options)] = (symbol, slot)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                symbol, slot = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    slot.shutdown()
                    slot = new_slot()
                    outcome = Outcome(
                        symbol, "", error="its process died: run it again, training goes on"
                    )
                idle.append(slot)
                yield outcome
    finally:
        for slot in (*idle, *(slot for _, slot in running.values())):
            slot.shutdown(wait=False, cancel_futures=True)
        relay.stop()


def _start(queue: Queue[logging.LogRecord], home: Path, device: str) -> None:
    """Set up a worker process: progress goes to the queue, definitions are built once."""
    from retrain_assets.definitions import build_definitions
    from retrain_assets.home import Home

    global _definitions
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(logging.handlers.QueueHandler(queue))
    _definitions = build_definitions(Home(home), device=device)


def _run_one(symbol: str, month: str, options: Options) -> Outcome:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        (outcome,) = run_stocks(_definitions, instance, [symbol], month, options)
    return outcome
