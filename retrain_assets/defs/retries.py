"""What a step does about an error: try again here, ask for a fresh process, or fail for good.

| what happens | what the system does |
| --- | --- |
| a network, a lock, a database or a drive is away (`causes.transient`) | waits and tries again in |
| | place, twice; training goes on from its last checkpoint |
| a card fails or memory runs out (`causes.process_broken`) | fails; the daemon starts the failed |
| | assets once more in a fresh process |
| a disk is full, input that cannot be used, anything else | fails, and is not tried again |

Dagster's own retry policy is not used: it tries everything again, Ctrl-C included.
"""

from __future__ import annotations

import time
from typing import NoReturn

import dagster as dg

from retrain_assets.defs.causes import disk_full, process_broken, transient
from retrain_assets.errors import RetrainError

POLICY = dg.RetryPolicy(
    max_retries=2, delay=2.0, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""How often something transient is tried again, and after how many seconds: 2, then 6, or so."""

# Read by Dagster when the run has failed: whether the daemon starts it again.
_AGAIN_TAG = "dagster/retry_on_asset_or_op_failure"
BROKEN_TAG = "retrain/process_broken"
"""Tag of a run: the id of the one that asked for a fresh process; whoever is started again has it
from there."""


def act_on(error: Exception) -> NoReturn:
    """Raise what an asset is to end with, for an error that it met."""
    if isinstance(error, dg.Failure | dg.RetryRequested):
        raise error
    if transient(error):
        _try_again(error)
    # An error in words of ours has judged already: it names what to do about full memory.
    if process_broken(error) and not isinstance(error, RetrainError):
        _ask_for_fresh_process(error)
    _stay_down()
    if isinstance(error, RetrainError):
        raise dg.Failure(str(error), allow_retries=False) from error
    if disk_full(error):
        told = f"the disk is full ({error}): make room and run again, training goes on"
        raise dg.Failure(told, allow_retries=False) from error
    raise error


def _try_again(error: Exception) -> NoReturn:
    """Wait and ask for another try, unless there were enough."""
    context = _context()
    tried = context.retry_number if context else 0
    if tried >= POLICY.max_retries:
        _stay_down()
        told = f"{_told(error)} (tried {tried + 1} times)"
        raise dg.Failure(told, allow_retries=False) from error
    seconds = max(0.0, POLICY.calculate_delay(tried + 1))
    dg.get_dagster_logger().warning(
        f"{_told(error)}: tried again in {seconds:.0f} s, {tried + 1} of {POLICY.max_retries}"
    )
    # Here and not where Dagster would wait: there Ctrl-C is not heard before the time is over.
    time.sleep(seconds)
    raise dg.RetryRequested(max_retries=POLICY.max_retries) from error


def _ask_for_fresh_process(error: Exception) -> NoReturn:
    context = _context()
    told = f"{_told(error)}: only a fresh process helps"
    if context is not None:
        tags = {_AGAIN_TAG: "true", BROKEN_TAG: context.run_id}
        context.instance.add_run_tags(context.run_id, tags)
    raise dg.Failure(told, allow_retries=False) from error


def _stay_down() -> None:
    """Take back that the run may be started again, where only an earlier one had asked for it."""
    context = _context()
    if context is None or BROKEN_TAG not in context.run.tags:
        return
    run = context.instance.get_run_by_id(context.run_id)
    if run is not None and run.tags.get(BROKEN_TAG) != context.run_id:
        context.instance.add_run_tags(context.run_id, {_AGAIN_TAG: "false"})


def _told(error: Exception) -> str:
    """An error in words; of the many lines of a device that failed the first tells."""
    if isinstance(error, RetrainError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _context() -> dg.OpExecutionContext | None:
    """The step under way, None outside of one."""
    try:
        return dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None
