"""MLflow: created once, logged to in batches, resumed by id, and clear about what it refuses."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from retrain_assets.defs.outages import StoreAway
from retrain_assets.defs.tracking import Tracking
from retrain_assets.errors import RetrainError
from retrain_assets.home import Home
from retrain_assets_tests.outage import contents, runs_of
from retrain_assets_tests.ports import free_port


def tracking_of(folder: Path) -> Tracking:
    return Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifacts=str(folder / "artifacts"))


@pytest.fixture
def tracking(home: Home) -> Tracking:
    return tracking_of(home.tracking)


OPEN = """
import sys
from pathlib import Path
from retrain_assets_tests.defs.test_tracking import tracking_of
with tracking_of(Path(sys.argv[1])).run("kronos", sys.argv[2], tags={"stock": sys.argv[2]}) as run:
    run.log_params({"a": 1})
"""


@pytest.mark.long
def test_processes_that_start_together_share_one_database(tmp_path: Path) -> None:
    names = ["A", "B"]
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path), name]) for name in names
    ]
    assert [process.wait(120) for process in started] == [0, 0]
    client = tracking_of(tmp_path).client()
    (experiment,) = client.search_experiments(filter_string="name = 'kronos'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["stock"] for run in runs) == names
    assert not list(tmp_path.glob("*.partial"))


def test_a_run_holds_params_batches_and_artifacts(tracking: Tracking, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    with tracking.run("kronos", "2023-08|AAA", tags={"stock": "AAA"}) as run:
        run.log_params({"rank": 8, "notes": ["a", "b"]})
        run.log_params({"rank": 8})
        run.log_metrics([(step, {"loss": 1 / step}) for step in range(1, 1502)])
        run.log_metrics([(1502, {"loss": float("nan"), "rate": 0.5})])
        run.log_folder(folder)
    stored = tracking.client().get_run(run.id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "2023-08|AAA"
    assert stored.data.params == {"rank": "8", "notes": "['a', 'b']"}
    assert len(tracking.client().get_metric_history(run.id, "loss")) == 1501
    assert stored.data.metrics["rate"] == 0.5
    assert [file.path for file in tracking.client().list_artifacts(run.id)] == ["plan.json"]
    assert run.url == f"{tracking.page}/#/experiments/{stored.info.experiment_id}/runs/{run.id}"


def test_a_run_goes_on_after_a_failure(tracking: Tracking) -> None:
    with pytest.raises(ValueError, match="killed"), tracking.run("kronos", "x", tags={}) as run:
        raise ValueError("killed")
    assert tracking.client().get_run(run.id).info.status == "FAILED"
    with tracking.run("kronos", "x", tags={"device": "cpu"}, resume=run.id) as again:
        assert again.id == run.id
        assert tracking.client().get_run(run.id).data.tags["device"] == "cpu"
        assert tracking.client().get_run(run.id).info.status == "RUNNING"
    assert tracking.client().get_run(run.id).info.status == "FINISHED"


def test_a_run_the_store_has_lost_starts_anew(tracking: Tracking) -> None:
    with tracking.run("kronos", "x", tags={}, resume="0" * 32) as run:
        assert run.id != "0" * 32


def test_an_unreachable_server_costs_seconds_and_nothing_else(tmp_path: Path) -> None:
    away = Tracking(uri="http://127.0.0.1:9", artifacts=str(tmp_path / "artifacts"))
    start = time.perf_counter()
    with away.run("kronos", "x", tags={}) as run:
        run.log_metrics([(1, {"loss": 0.5})])
    assert time.perf_counter() - start < 30
    assert run.url == away.outbox.entries()[0].folder.as_uri()
    with pytest.raises(StoreAway, match=r"http://127\.0\.0\.1:9 does not answer: .*refused"):
        away.client()


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("bogus://x", "'bogus://x'.*unset MLFLOW_TRACKING_URI"),
        ("postgresql://u:secret@127.0.0.1:9/db", "database at postgresql://127.0.0.1:9/db does"),
    ],
)
def test_an_address_that_is_wrong_or_silent_is_told(tmp_path: Path, uri: str, told: str) -> None:
    with pytest.raises(RetrainError, match=told) as refused:
        Tracking(uri=uri, artifacts=str(tmp_path / "artifacts")).client()
    assert "secret" not in str(refused.value)


def test_a_database_of_an_unknown_revision_is_refused(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('of another time')")
        database.commit()
    with (
        pytest.raises(RetrainError, match=r"refused: .*of another time"),
        tracking_of(tmp_path).run("kronos", "x", tags={}),
    ):
        pytest.fail("there is no database to log to")
    assert not tracking_of(tmp_path).outbox.entries()


def test_a_refusal_inside_the_run_is_told(tracking: Tracking) -> None:
    with (
        pytest.raises(RetrainError, match="refused"),
        tracking.run("kronos", "x", tags={"rank": "8"}) as run,
    ):
        # MLflow refuses a parameter whose value changes.
        [run.log_params({"rank": rank}) for rank in (8, 16)]
    assert tracking.client().get_run(run.id).info.status == "FAILED"


@contextlib.contextmanager
def server(home: Home, port: int) -> Iterator[Callable[[], None]]:
    """MLflow's own server over a data folder, in a process of its own; yields how to kill it."""
    beside = home.tracking / "served"
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{home.tracking / 'mlflow.db'}",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{home.tracking / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(beside),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    # What `mlflow server` starts, without its own process around it.
    command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    process = subprocess.Popen(command, env=os.environ | settings)

    def kill() -> None:
        process.kill()
        process.wait()

    try:
        answers = Retrying(wait=wait_fixed(0.2), stop=stop_after_delay(200))
        answers(urllib.request.urlopen, f"http://127.0.0.1:{port}/health", timeout=5)
        yield kill
    finally:
        kill()


def test_a_server_that_dies_half_way_gets_the_rest_when_it_is_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    port = free_port()
    served = Tracking(uri=f"http://127.0.0.1:{port}", artifacts=str(home.tracking / "artifacts"))
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")

    def logged(die: Callable[[], None]) -> str:
        with served.run("kronos", "2023-08|AAA", tags={"stock": "AAA"}) as run:
            run.log_params({"rank": 8})
            run.log_metrics([(1, {"loss": 0.5})])
            die()
            run.log_metrics([(2, {"loss": 0.4})])
            run.log_params({"best": 2})
            run.log_folder(folder)
        return run.id

    with server(home, port) as kill:
        undisturbed = logged(lambda: None)
        disturbed = logged(kill)
    assert len(served.outbox.entries()) == 1
    started_away = logged(lambda: None)
    assert started_away.startswith("kept-")
    with server(home, port):
        expected = contents(served, undisturbed)
        assert expected["files"] == {"plan.json": b"{}"}
        runs = runs_of(served, "kronos")
        assert len(runs) == 3
        assert {undisturbed, disturbed} < set(runs)
        assert [contents(served, run) for run in runs] == [expected] * 3
    assert not served.outbox.entries()
