"""MLflow: created once, logged to in batches, resumed by id, and clear when it is away."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrain_assets.defs.tracking import Tracking
from retrain_assets.errors import RetrainError
from retrain_assets.home import Home


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


def test_an_unreachable_server_is_told_within_seconds(tmp_path: Path) -> None:
    away = Tracking(uri="http://127.0.0.1:9", artifacts=str(tmp_path))
    start = time.perf_counter()
    with (
        pytest.raises(
            RetrainError, match=r"MLflow at http://127\.0\.0\.1:9 .*Start that server, or"
        ),
        away.run("kronos", "x", tags={}),
    ):
        pytest.fail("there is no server to run against")
    assert time.perf_counter() - start < 30


def test_a_refusal_inside_the_run_is_told(tracking: Tracking) -> None:
    with (
        pytest.raises(RetrainError, match="did not answer or refused"),
        tracking.run("kronos", "x", tags={"rank": "8"}) as run,
    ):
        # MLflow refuses a parameter whose value changes.
        [run.log_params({"rank": rank}) for rank in (8, 16)]
    assert tracking.client().get_run(run.id).info.status == "FAILED"
