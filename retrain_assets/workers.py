"""Several stocks at a time: each slot is a process that runs one stock after the other.

Small models do not gain from a second CPU thread what a second stock gains from a second core.
Progress comes back through a pipe, so the caller's listeners see what they see for one process.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.defs.progress import LOGGER
from retrain_assets.orphans import end_with_parent
from retrain_assets.runs import Outcome, run_stocks
from retrain_assets.work import Work

if TYPE_CHECKING:
    import dagster as dg

_TO_GIVE_UP = 30.0  # seconds

_definitions: dg.Definitions
"""Set once in every worker process, by `_start`."""


class Slot:
    """One process that runs one stock at a time, and the thread that passes its progress on.

    The two share a pipe and no lock: a process that is killed leaves nobody waiting.
    """

    def __init__(self, home: Path, device: str, listener: logging.Handler) -> None:
        context = multiprocessing.get_context("spawn")
        self._reader, writer = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(1, context, _start, (writer, home, device))
        self._listener, self._closed = listener, threading.Event()
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        self._relay.start()

    def submit(self, symbol: str, month: str, work: Work) -> Future[Outcome]:
        """Run a stock in the process."""
        return self._pool.submit(_run_one, symbol, month, work)

    def close(self) -> None:
        """Let the process end and pass on what it still had to tell."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._closed.set()
        self._relay.join()

    def _pass_on(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                if self._reader.poll(0.1):
                    self._show(self._reader.recv())
                elif self._closed.is_set():
                    return

    def _show(self, record: logging.LogRecord) -> None:
        try:
            self._listener.handle(record)
        except Exception:
            # As everywhere in logging: a display that fails is reported and stops nobody. If this
            # thread ended, the pipe would fill and the process would wait for ever.
            self._listener.handleError(record)


class _PipeHandler(logging.handlers.QueueHandler):
    """Sends records through a pipe; `prepare` of the parent class makes them fit to travel."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(record)  # type: ignore[attr-defined]  # a pipe stands in for the queue


def run_side_by_side(
    home: Path,
    symbols: Sequence[str],
    month: str,
    work: Work,
    *,
    device: str,
    jobs: int,
    listener: logging.Handler,
) -> Iterator[Outcome]:
    """Run up to `jobs` stocks at a time and yield each outcome as it comes.

    home: the data folder. listener: receives the progress records of all processes. A process
    that dies costs the stock it was running, whose next run goes on from its last checkpoint.
    Ctrl-C ends them all.
    """
    waiting, running = deque(symbols), dict[Future[Outcome], tuple[str, Slot]]()
    idle = [Slot(home, device, listener) for _ in range(min(jobs, len(symbols)))]
    try:
        while waiting or running:
            while waiting and idle:
                symbol, slot = waiting.popleft(), idle.pop()
                running[slot.submit(symbol, month, work)] = (symbol, slot)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                symbol, slot = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    slot.close()
                    slot = Slot(home, device, listener)
                    outcome = Outcome(
                        symbol, "", error="its process died: run it again, training goes on"
                    )
                idle.append(slot)
                yield outcome
    except KeyboardInterrupt:
        _interrupt(running)
        raise
    finally:
        for slot in (*idle, *(slot for _, slot in running.values())):
            slot.close()


def _interrupt(running: Iterable[Future[Outcome]]) -> None:
    """Let the processes give up their stocks, which marks the runs as failed.

    A terminal's Ctrl-C has reached them already; one that was sent to this process alone has not.
    """
    _, busy = wait(running, timeout=_TO_GIVE_UP / 10)
    if busy:
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)  # a child that has ended is not reaped before
        _, busy = wait(busy, timeout=_TO_GIVE_UP)
    if busy:
        for worker in multiprocessing.active_children():
            worker.kill()


def _start(writer: Connection, home: Path, device: str) -> None:
    """Set up a worker process: progress goes into the pipe, definitions are built once."""
    end_with_parent()
    from retrain_assets.definitions import build_definitions
    from retrain_assets.home import Home

    global _definitions
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    LOGGER.addHandler(_PipeHandler(writer))  # type: ignore[arg-type]  # see `enqueue`
    _definitions = build_definitions(Home(home), device=device)


def _run_one(symbol: str, month: str, work: Work) -> Outcome:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        (outcome,) = run_stocks(_definitions, instance, [symbol], month, work)
    return outcome
