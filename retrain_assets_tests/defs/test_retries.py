"""What an asset's error leads to: another try here, a fresh process, or neither."""

import errno
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
import requests
import torch
from filelock import Timeout

from retrain_assets.defs import retries
from retrain_assets.defs.causes import disk_full, process_broken, transient
from retrain_assets.defs.failures import failure_reason, root_error
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.errors import BadInput, CannotWrite, TrainingFailed, Transient

AGAIN = "dagster/retry_on_asset_or_op_failure"


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(str(status), response=response)


TRANSIENT = [
    Transient("the feed did not answer"),
    BlockingIOError(errno.EAGAIN, "try again"),
    OSError(errno.EIO, "a network drive was away"),
    OSError(errno.ESTALE, "stale file handle"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    TimeoutError("timed out"),
    Timeout("/data/locks/x"),
    requests.ConnectionError("refused"),
    answered(503),
    answered(429),
    sqlite3.OperationalError("database is locked"),
    raised_from(BadInput("it is locked: try again when it is done"), Timeout("x")),
]
FOR_GOOD = [
    BadInput("row 7: no price"),
    TrainingFailed("the losses diverged"),
    ValueError("a mistake in the program"),
    OSError(errno.EACCES, "permission denied"),
    FileNotFoundError(errno.ENOENT, "no such file"),
    answered(404),
    sqlite3.OperationalError("no such table: runs"),
]
FULL = [
    OSError(errno.ENOSPC, "no space left on device"),
    CannotWrite(errno.EDQUOT, "quota exceeded", "/data/x"),
    sqlite3.OperationalError("database or disk is full"),
    raised_from(ConnectionError("while sending"), OSError(errno.ENOSPC, "no space left")),
]
BROKEN = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nhint", 700),
    RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
]


def name(error: Exception) -> str:
    return f"{type(error).__name__} {error}"[:40]


@pytest.mark.parametrize("error", TRANSIENT + FOR_GOOD + FULL + BROKEN, ids=name)
def test_each_cause_is_told_from_the_others(error: Exception) -> None:
    found = (transient(error), disk_full(error), process_broken(error))
    assert found == (error in TRANSIENT, error in FULL, error in BROKEN)


def test_a_hub_that_was_switched_off_is_not_waited_for() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    assert not transient(OfflineModeIsEnabled("offline"))


@pytest.fixture(scope="module")
def instance() -> Any:
    """Run retries as the shipped settings have them."""
    settings = {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    with dg.instance_for_test(overrides={"run_retries": settings}) as found:
        yield found


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "POLICY", dg.RetryPolicy(max_retries=2, delay=0))


def run_of(
    instance: dg.DagsterInstance, work: Callable[[], None], tags: dict[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """Run one asset that does some work, as the code location's executor runs it."""

    @dg.asset
    def adapter() -> None:
        with failing_plainly():
            work()

    defs = dg.Definitions(
        assets=[adapter],
        jobs=[dg.define_asset_job("train", selection="*")],
        executor=dg.in_process_executor,
    )
    job = defs.resolve_job_def("train")
    return job.execute_in_process(instance=instance, raise_on_error=False, tags=tags)


class Failing:
    """Work that raises an error so many times, and then succeeds."""

    def __init__(self, error: Exception, times: int = 1_000) -> None:
        self.error, self.times, self.tries = error, times, 0

    def __call__(self) -> None:
        self.tries += 1
        if self.tries <= self.times:
            raise self.error


def why(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.get_step_failure_events()
    return failure_reason(event.step_failure_data)


def will_retry(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> bool:
    """Whether the daemon starts it again."""
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return run.tags.get("dagster/will_retry") == "true"


@pytest.mark.parametrize("error", TRANSIENT[::3], ids=name)
def test_what_may_pass_is_tried_again_in_place(
    instance: dg.DagsterInstance, error: Exception
) -> None:
    work = Failing(error, times=2)
    assert run_of(instance, work).success
    assert work.tries == 3


def test_what_does_not_pass_fails_after_three_tries(instance: dg.DagsterInstance) -> None:
    work = Failing(Transient("the hub cannot be reached"))
    result = run_of(instance, work)
    assert work.tries == 3
    assert why(result) == "the hub cannot be reached (tried 3 times)"
    assert not will_retry(instance, result)


@pytest.mark.parametrize("error", [*FOR_GOOD[:3], *FULL[:2]], ids=name)
def test_what_no_retry_heals_is_not_tried_again(
    instance: dg.DagsterInstance, error: Exception
) -> None:
    work = Failing(error)
    result = run_of(instance, work)
    assert work.tries == 1
    assert str(error) in why(result)
    assert not will_retry(instance, result)


def test_a_full_disk_says_what_to_do(instance: dg.DagsterInstance) -> None:
    assert "make room and run again" in why(run_of(instance, Failing(FULL[0])))


@pytest.mark.parametrize("error", BROKEN[::2], ids=name)
def test_a_broken_process_is_left_for_a_fresh_one(
    instance: dg.DagsterInstance, error: Exception
) -> None:
    work = Failing(error)
    result = run_of(instance, work)
    assert work.tries == 1
    assert will_retry(instance, result)
    assert why(result).endswith("only a fresh process helps")
    assert "\n" not in why(result)


def test_advice_on_full_memory_is_not_tried_again(instance: dg.DagsterInstance) -> None:
    error = raised_from(TrainingFailed("one window does not fit"), torch.OutOfMemoryError("full"))
    result = run_of(instance, Failing(error))
    assert why(result) == "one window does not fit"
    assert not will_retry(instance, result)


def test_a_fresh_process_that_meets_bad_input_ends_it(instance: dg.DagsterInstance) -> None:
    """A run that is started again has the tags of the one before."""
    first = instance.get_run_by_id(run_of(instance, Failing(BROKEN[0])).run_id)
    assert first is not None
    inherited = {key: first.tags[key] for key in (AGAIN, retries.BROKEN_TAG)}
    assert not will_retry(instance, run_of(instance, Failing(BadInput("no bars")), inherited))
    assert will_retry(instance, run_of(instance, Failing(BROKEN[0]), inherited))


def test_a_command_that_runs_here_asks_for_no_process(instance: dg.DagsterInstance) -> None:
    """Whoever gave the command repeats it; the daemon does not."""
    result = run_of(instance, Failing(BROKEN[0]), {"dagster/max_retries": "0"})
    assert not will_retry(instance, result)


def test_ctrl_c_ends_a_wait_for_another_try_at_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "POLICY", dg.RetryPolicy(max_retries=2, delay=60))
    work = Failing(Transient("away"))

    def interrupt() -> None:
        while not work.tries:
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    start = time.perf_counter()
    (event,) = run_of(instance, work).get_step_failure_events()
    assert event.step_failure_data.error is not None
    assert root_error(event.step_failure_data.error).cls_name == "DagsterExecutionInterruptedError"
    assert time.perf_counter() - start < 30
    assert work.tries == 1
