"""A run launcher that notices runs whose process or machine has died.

Dagster's default launcher starts runs in its code server and never asks again, so a run that
was under way when the power failed stays STARTED for ever and keeps its slot. This one answers
the daemon's health question. Runs that the command line executes in its own process carry a tag
that says which process that is, and are looked after the same way.
"""

from __future__ import annotations

import socket

import dagster as dg
import grpc
import psutil

# Private names: the reason why dagster is pinned below 1.14, and why a test kills a server.
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from retrain_assets.engines import keep_engines

PROCESS_TAG = "retrain/process"
_PATIENCE = 10  # seconds that a code server has to answer


def process_tag() -> dict[str, str]:
    """A run tag that names this process beyond doubt: host, process id, start time."""
    return {PROCESS_TAG: _named(psutil.Process())}


def _named(process: psutil.Process) -> str:
    return f"{socket.gethostname()}/{process.pid}/{process.create_time():.0f}"


def _process_health(tag: str) -> CheckRunHealthResult:
    host, pid, _ = tag.split("/")
    if host != socket.gethostname():
        return CheckRunHealthResult(WorkerStatus.RUNNING, f"runs on {host}, which is not asked")
    try:
        alive = _named(psutil.Process(int(pid))) == tag
    except psutil.NoSuchProcess:
        alive = False
    if alive:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {pid} has ended")


def _timed_out(error: DagsterUserCodeUnreachableError) -> bool:
    cause = error.__cause__
    return isinstance(cause, grpc.RpcError) and cause.code() == grpc.StatusCode.DEADLINE_EXCEEDED


class SupervisedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's default launcher, which also reports whether a run's worker still lives."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Tells the daemon that it may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING, or NOT_FOUND with the reason: the daemon then fails the run and retries it.

        A code server that is merely slow to answer counts as running: it may be training.
        """
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]  # Dagster leaves it untyped
        if client is None:
            # A run re-executed from the web page inherits the tag; its code server comes first.
            tag = run.tags.get(PROCESS_TAG)
            unknown = CheckRunHealthResult(WorkerStatus.RUNNING, "no worker is recorded for it")
            return _process_health(tag) if tag else unknown
        request = CanCancelExecutionRequest(run_id=run.run_id)
        try:
            reply = client.can_cancel_execution(request, timeout=_PATIENCE)
        except DagsterUserCodeUnreachableError as error:
            if _timed_out(error):
                return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server is busy")
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server is gone")
        if deserialize_value(reply, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its code server no longer runs it")


keep_engines()
