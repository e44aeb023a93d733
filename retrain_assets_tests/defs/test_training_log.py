"""What a training tells of itself: the plan first, a line an epoch, and how busy the machine is."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import mlflow
import pytest
from mlflow.exceptions import MlflowException

from retrain_assets.defs.partitions import partition_key
from retrain_assets.defs.tracking import Tracking
from retrain_assets.defs.training_log import epoch_reporter, system_metrics
from retrain_assets.training.trainer import Progress
from retrain_assets_tests.finished import Finished
from retrain_assets_tests.installed import MONTH

MONITOR = "SystemMetricsMonitor"


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def context(told: list[str]) -> Any:
    """As much of an asset's context as a report needs."""
    log = SimpleNamespace(info=told.append)
    key, asset = partition_key("2023-08", "AAA"), dg.AssetKey("kronos_adapter")
    return SimpleNamespace(log=log, partition_key=key, asset_key=asset)


def at(step: int, seconds: float, validation: float | None = 0.5) -> Progress:
    return Progress(step // 10, 10, step, 100, 0.25, validation, 1e-4, seconds)


def test_an_epoch_tells_losses_pace_time_left_and_memory(context: Any, told: list[str]) -> None:
    logged: list[Any] = []
    report = epoch_reporter(context, SimpleNamespace(log_metrics=logged.append), "cpu")  # type: ignore[arg-type]
    report(at(20, 4.0, None))
    report(at(40, 6.0))
    (line,) = told
    assert line.startswith("epoch 4/10, step 40/100, loss 0.2500, validation_loss 0.5000, ")
    assert "10 steps/s, 0:00:06 left at most" in line
    assert re.search(r", [\d.]+ [kMG]B of memory$", line)
    assert logged == [[(40, {"validation.loss": 0.5, "learning_rate": 1e-4})]]


def test_the_pace_of_a_fit_that_goes_on_is_of_its_own_steps(context: Any, told: list[str]) -> None:
    run = SimpleNamespace(log_metrics=lambda _: None)
    report = epoch_reporter(context, run, "cpu")  # type: ignore[arg-type]
    report(at(50, 1.0))
    report(at(60, 3.0))
    assert "steps/s" not in told[0]
    assert "5 steps/s, 0:00:08 left" in told[1]


def test_a_run_s_log_begins_with_plan_and_dates(finished: Finished) -> None:
    """And they stand before the first epoch."""
    with dg.DagsterInstance.get() as instance:
        run = next(run for run in instance.get_runs() if "mlflow/kronos" in run.tags)
        entries = instance.all_logs(run.run_id)
    lines = [e.user_message for e in entries if e.step_key == "kronos_adapter"]
    first = {
        word: next(i for i, line in enumerate(lines) if line.startswith(word))
        for word in ("plan: ", "split: train ", "epoch ")
    }
    assert first["plan: "] < first["split: train "] < first["epoch "]
    assert re.search(rf"test [\d-]+ to {MONTH}-\d\d$", lines[first["split: train "]])


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    return Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifacts=str(tmp_path / "files"))


def watched() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == MONITOR]


def test_how_busy_the_machine_is_is_logged_while_it_lasts(tracking: Tracking) -> None:
    def names() -> set[str]:
        return set(client.get_run(run.id).data.metrics)

    with tracking.run("kronos", "x", tags={}) as run, system_metrics(run):
        client = run.client
        assert client is not None
        until = time.monotonic() + 60
        while not names() and time.monotonic() < until:
            time.sleep(0.1)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names()
    assert client.get_run(run.id).info.status == "FINISHED"
    assert watched() == []


def test_work_goes_on_when_the_store_does_not_take_them(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.run("kronos", "x", tags={}) as run:
        get_run = mlflow.MlflowClient.get_run

        def away(*_: Any, **__: Any) -> None:
            raise MlflowException("away")

        monkeypatch.setattr(mlflow.MlflowClient, "get_run", away)
        with system_metrics(run):
            time.sleep(0.3)
        monkeypatch.setattr(mlflow.MlflowClient, "get_run", get_run)
    assert run.client is not None
    assert run.client.get_run(run.id).info.status == "FINISHED"


def test_a_run_that_waits_in_the_outbox_goes_without(tmp_path: Path) -> None:
    tracking = Tracking(uri="http://127.0.0.1:9", artifacts=str(tmp_path / "files"))
    with tracking.run("kronos", "x", tags={}) as run, system_metrics(run):
        assert run.away
        assert watched() == []
