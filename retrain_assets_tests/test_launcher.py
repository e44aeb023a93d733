"""Runs whose process has died are noticed; runs that merely take long are left alone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher.base import WorkerStatus
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from retrain_assets.launcher import PROCESS_TAG, SupervisedRunLauncher, process_tag

LOGGER = logging.getLogger(__name__)
SETTINGS = {
    "run_launcher": {"module": "retrain_assets.launcher", "class": "SupervisedRunLauncher"},
    "run_monitoring": {"enabled": True},
}


@dg.op
def _sleep() -> None:
    time.sleep(600)


@dg.job
def sleepy() -> None:
    """A job that does not end by itself."""
    _sleep()


defs = dg.Definitions(jobs=[sleepy])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(overrides=SETTINGS) as made:
        yield made


def health(instance: dg.DagsterInstance, tags: dict[str, str]) -> tuple[WorkerStatus, str]:
    run = create_run_for_test(instance, tags=tags)
    assert isinstance(instance.run_launcher, SupervisedRunLauncher)
    assert instance.run_launcher.supports_check_run_worker_health
    result = instance.run_launcher.check_run_worker_health(run)
    return result.status, result.msg or ""


def test_a_run_of_a_living_process_is_running(instance: dg.DagsterInstance) -> None:
    assert health(instance, process_tag())[0] == WorkerStatus.RUNNING


def test_a_run_of_an_ended_process_is_not_found(instance: dg.DagsterInstance) -> None:
    code = "from retrain_assets.launcher import *; print(process_tag()[PROCESS_TAG])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, message = health(instance, {PROCESS_TAG: ended.stdout.strip()})
    assert status == WorkerStatus.NOT_FOUND
    assert "has ended" in message


def test_a_process_id_that_was_given_again_is_not_mistaken(instance: dg.DagsterInstance) -> None:
    host, pid, started = process_tag()[PROCESS_TAG].split("/")
    earlier = f"{host}/{pid}/{int(started) - 1000}"
    assert health(instance, {PROCESS_TAG: earlier})[0] == WorkerStatus.NOT_FOUND


def test_other_machines_and_unmarked_runs_are_left_alone(instance: dg.DagsterInstance) -> None:
    elsewhere = f"not-{socket.gethostname()}/1/1"
    assert health(instance, {PROCESS_TAG: elsewhere})[0] == WorkerStatus.RUNNING
    assert health(instance, {})[0] == WorkerStatus.RUNNING


@pytest.mark.long
def test_a_killed_code_server_is_noticed(instance: dg.DagsterInstance) -> None:
    target = ModuleTarget("retrain_assets_tests.test_launcher", None, str(Path.cwd()), "tests")
    with WorkspaceProcessContext(instance, target) as process_context:
        workspace = process_context.create_request_context()
        location = workspace.get_code_location("tests")
        job = next(iter(location.get_repositories().values())).get_full_job("sleepy")
        run = create_run_for_test(
            instance,
            job_name="sleepy",
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        instance.launch_run(run.run_id, workspace)
        wait_for(lambda: instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED)
        list(execute_run_monitoring_iteration(process_context, LOGGER))
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
        for child in psutil.Process().children(recursive=True):
            os.kill(child.pid, signal.SIGKILL)
        list(execute_run_monitoring_iteration(process_context, LOGGER))
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    (event,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "its code server is gone" in event.message


def wait_for(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
