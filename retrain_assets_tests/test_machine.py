"""Daemon, queue and machine die or restart, for real; the work goes on where it was.

`retrain ui` runs in a process group of its own over a temporary data folder with tiny bases, and
nothing of it is left after a test.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from retrain_assets.commands.console import dagster_instance
from retrain_assets.definitions import RETRAIN_STOCK, build_definitions
from retrain_assets.defs.partitions import partition_key
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.work import QUIET
from retrain_assets_tests.installed import MONTH, entered
from retrain_assets_tests.ports import free_port

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

SECONDS = 900.0
TRAINED = ("market_bars", "baseline_metrics", "kronos_adapter")
# Enough epochs to be killed in, with a checkpoint after each.
STEPS = 160
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""


class Machine:
    """Everything that runs on a machine for one data folder, started by a command."""

    def __init__(self, home: Home, *command: str) -> None:
        self.home = home
        self.command = [sys.executable, "-m", *command]
        self.log = home.root / "machine.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, start_new_session=True, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """SIGKILL for every process there is, as if the power had failed."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            everyone = [first, *first.children(recursive=True)]
            for one in everyone:  # none may react to the death of another
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.suspend()
            everyone = {first, *everyone, *first.children(recursive=True)}
            for one in everyone:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.wait()
            psutil.wait_procs(everyone, timeout=60)
        self.process = None

    def told(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@pytest.fixture
def machine(home: Home) -> Iterator[Callable[..., Machine]]:
    """Starts machines that are gone after the test."""
    started: list[Machine] = []

    def start(*command: str) -> Machine:
        started.append(Machine(home, *command))
        started[-1].start()
        return started[-1]

    by_hand_alone(home)
    yield start
    for one in started:
        one.kill()


def by_hand_alone(home: Home) -> None:
    """No schedule or sensor asks for anything, and the pool has two places."""
    universe = yaml.safe_load(home.universe.read_text())
    for stock in universe["stocks"]:
        stock["active"] = False
    universe["operation"] = {"pools": {"gpu": 2}}
    home.universe.write_text(yaml.safe_dump(universe))


def wait_for(
    what: Callable[[], Any], machine: Machine, seconds: float = SECONDS, pause: float = 0.2
) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"nothing happened\n{machine.told()}"
        time.sleep(pause)
    return found


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(asked(port, "{ version }"))
    return False


def asked(port: int, query: str, **variables: Any) -> dict[str, Any]:
    """Answer of the web server's GraphQL."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        found: dict[str, Any] = json.load(reply)["data"]
        return found


def launch(port: int, symbol: str, *, steps: int) -> str:
    """Ask for a training as the web page does; returns the run's id."""
    config = {"kronos_adapter": {"config": {"base": "tiny", "max_steps": steps}}}
    params = {
        "selector": {
            "repositoryLocationName": "retrain_assets",
            "repositoryName": "__repository__",
            "jobName": RETRAIN_STOCK,
            "assetSelection": [{"path": [name]} for name in TRAINED],
        },
        "runConfigData": {"ops": config, "loggers": QUIET},
        "executionMetadata": {
            "tags": [
                {"key": "dagster/partition", "value": partition_key(MONTH, symbol)},
                {"key": "dagster/partition/month", "value": MONTH},
                {"key": "dagster/partition/stock", "value": symbol},
            ]
        },
    }
    answer = asked(port, LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def ended(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus | None:
    status = instance.get_run_by_id(run_id).status
    return status if run_finished(status) else None


def run_finished(status: dg.DagsterRunStatus) -> bool:
    return status in {
        dg.DagsterRunStatus.SUCCESS,
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    }


def adapter(home: Home) -> dict[str, Any]:
    found: dict[str, Any] = read_json(home.assets / "kronos_adapter" / MONTH / "AAA.json")
    return found


def undisturbed(template: Path, tmp_path: Path) -> dict[str, Any]:
    """The adapter of the same training in another folder, in one go, in this process."""
    import shutil

    shutil.copytree(template, tmp_path / "undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        other = entered(tmp_path / "undisturbed", patch)
        with dagster_instance(other) as instance:
            result = build_definitions(other, device="cpu").resolve_job_def(RETRAIN_STOCK)
            config = {"kronos_adapter": {"config": {"base": "tiny", "max_steps": STEPS}}}
            assert result.execute_in_process(
                instance=instance,
                partition_key=partition_key(MONTH, "AAA"),
                run_config={"ops": config, "loggers": QUIET},
                asset_selection=[dg.AssetKey(name) for name in TRAINED],
            ).success
        return adapter(other)


def test_a_machine_that_loses_power_while_training_goes_on(
    home: Home, template: Path, tmp_path: Path, machine: Callable[..., Machine]
) -> None:
    port = free_port()
    whole = machine("retrain_assets.cli", "ui", "--port", str(port))
    with dagster_instance(home) as instance:
        wait_for(lambda: answers(port), whole)
        first = launch(port, "AAA", steps=STEPS)
        kept = f"kronos/{MONTH}/AAA/.*.training/[0-9]*"
        wait_for(lambda: list(home.models.glob(kept)) or ended(instance, first), whole, pause=0.01)
        whole.kill()
        assert instance.get_run_by_id(first).status == dg.DagsterRunStatus.STARTED
        assert not (home.models / "kronos" / MONTH / "AAA" / "latest.json").exists()
        whole.start()
        assert wait_for(lambda: ended(instance, first), whole) == dg.DagsterRunStatus.FAILURE
        retried = dg.RunsFilter(tags={"dagster/parent_run_id": first})
        (again,) = wait_for(lambda: instance.get_runs(retried), whole)
        assert wait_for(lambda: ended(instance, again.run_id), whole) == dg.DagsterRunStatus.SUCCESS
        pool = instance.event_log_storage.get_concurrency_info("gpu")
        assert (pool.slot_count, pool.active_slot_count, pool.pending_step_count) == (2, 0, 0)
        # A card is free as well, not only a place in the pool.
        third = launch(port, "BBB", steps=3)
        assert wait_for(lambda: ended(instance, third), whole) == dg.DagsterRunStatus.SUCCESS
    whole.kill()
    found, expected = adapter(home), undisturbed(template, tmp_path)
    assert found["digest"] == expected["digest"]
    assert found["metrics"]["measured"]["resumed_at_epoch"] >= 1
    assert expected["metrics"]["measured"]["resumed_at_epoch"] in (0, None)
    assert list(home.models.rglob("*.training")) == []


def test_two_runs_of_one_partition_never_meet(home: Home, machine: Callable[..., Machine]) -> None:
    port = free_port()
    whole = machine("retrain_assets.cli", "ui", "--port", str(port))
    with dagster_instance(home) as instance:
        wait_for(lambda: answers(port), whole)
        both = [launch(port, "AAA", steps=40), launch(port, "AAA", steps=50)]
        other = launch(port, "BBB", steps=200)
        times = {}
        for run_id in [*both, other]:
            status = wait_for(lambda run=run_id: ended(instance, run), whole)
            assert status == dg.DagsterRunStatus.SUCCESS
            record = instance.get_run_record_by_id(run_id)
            times[run_id] = (record.start_time, record.end_time)
    (first, second), beside = sorted(times[run_id] for run_id in both), times[other]
    assert first[1] <= second[0]
    # It was not the pool that kept them apart: another stock's run went on beside one of them.
    assert any(beside[0] < one[1] and one[0] < beside[1] for one in (first, second))
    assert adapter(home)["metrics"]["steps"] in (40, 50)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_restarted_in_a_backfill_does_the_rest(
    home: Home, machine: Callable[..., Machine], how: int
) -> None:
    months = [f"2023-0{month}" for month in range(4, 9)]
    with dagster_instance(home) as instance:
        backfill = asked_to_fill(instance, home, months)
        workspace = str(home.dagster / "workspace.yaml")
        daemon = machine("dagster._daemon", "run", "--workspace", workspace)
        made = dg.RunsFilter(tags={"dagster/backfill": backfill})
        wait_for(lambda: instance.get_runs_count(made) >= 1, daemon)
        assert daemon.process is not None
        os.kill(daemon.process.pid, how)
        daemon.process.wait(60)
        before = instance.get_runs_count(made)
        daemon.start()
        wait_for(lambda: instance.get_backfill(backfill).status not in UNDER_WAY, daemon, pause=1)
        found = instance.get_backfill(backfill)
        assert found.status == BulkActionStatus.COMPLETED_SUCCESS, found.error
        runs = instance.get_runs(made)
        done = [r.tags["dagster/partition"] for r in runs if r.status.value == "SUCCESS"]
        assert sorted(done) == [partition_key(month, "AAA") for month in months]
        assert before < len(months), "it had asked for everything before it was ended"


UNDER_WAY = {BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING}


def asked_to_fill(instance: dg.DagsterInstance, home: Home, months: list[str]) -> str:
    """A backfill of bars of one stock, as the web page asks for it; returns its id."""
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="restarted",
        asset_graph=build_definitions(home).resolve_asset_graph(),
        partition_names=[partition_key(month, "AAA") for month in months],
        asset_selection=[dg.AssetKey("market_bars")],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id
