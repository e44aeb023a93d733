"""The command line as a process: servers, Ctrl-C, kills, and the same results as from the page."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from retrain_assets.home import DAGSTER_PAGE, MLFLOW_PAGE, Home
from retrain_assets_tests.calls import GRID, QUICK, retrain
from retrain_assets_tests.installed import MONTH

__all__ = ["retrain"]


@pytest.mark.long
@pytest.mark.parametrize(("command", "page"), [("ui", DAGSTER_PAGE), ("mlflow", MLFLOW_PAGE)])
def test_a_server_answers_on_loopback_and_ends_with_ctrl_c(
    home: Home, command: str, page: str
) -> None:
    server = subprocess.Popen([sys.executable, "-m", "retrain_assets.cli", command])
    try:
        assert status(page) == 200
        port = int(page.rsplit(":", 1)[1])
        listening = {c.laddr.ip for c in connections() if c.laddr.port == port}
        assert listening == {"127.0.0.1"}
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def connections() -> list[Any]:
    return [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]


def status(page: str, seconds: float = 90) -> int:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(page, timeout=10) as reply:
                return int(reply.status)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


@pytest.mark.long
def test_the_web_page_and_dg_give_what_the_command_line_gives(home: Home, retrain: Any) -> None:
    arguments = ["--stocks", "AAA", "--month", MONTH, "--no-progress", *QUICK, *GRID]
    assert retrain("run", *arguments).code == 0
    record = home.assets / "kronos_adapter" / MONTH / "AAA.json"
    first = json.loads(record.read_text())
    params = home.assets / "kronos_params" / MONTH / "AAA.json"
    searched = json.loads(params.read_text())
    shutil.rmtree(home.assets)
    shutil.rmtree(home.models)
    space = {"num_samples": [2, 4], "temperature": [0.6, 1], "top_k": [3, None], "top_p": [None]}
    config = {
        "kronos_adapter": {"config": {"base": "tiny", "max_steps": 3}},
        "kronos_params": {"config": {"space": space}},
        # The job takes in every family; this one has no bundled base in the test's folder.
        "toto_adapter": {"config": {"base": "tiny", "max_steps": 3}},
        "comparison": {"config": {"families": ["kronos"]}},
    }
    subprocess.run(
        [
            *(sys.executable, "-m", "dagster_dg_cli.cli.entrypoint", "launch"),
            *("--job", "retrain_stock", "--partition", f"{MONTH}|AAA"),
            *("--config-json", json.dumps({"ops": config})),
        ],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    again = json.loads(record.read_text())
    assert (again["digest"], again["folder"]) == (first["digest"], first["folder"])
    repeated = json.loads(params.read_text())
    assert (repeated["digest"], repeated["summary"]) == (searched["digest"], searched["summary"])


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_the_same(home: Home, retrain: Any, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "other")
    arguments = ["run", "--stocks", "AAA", "--month", MONTH, "--base", "tiny", "--device", "cpu"]
    arguments += ["--max-steps", "120", "--no-search"]
    assert retrain(*arguments).code == 0
    whole = json.loads((home.assets / "kronos_adapter" / MONTH / "AAA.json").read_text())

    other = Home(tmp_path / "other")
    environment = os.environ | {"RETRAIN_HOME": str(other.root), "DAGSTER_HOME": str(other.dagster)}
    command = [sys.executable, "-u", "-m", "retrain_assets.cli", *arguments]
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    for line in killed.stdout:
        if "epoch 2/" in line:
            killed.kill()
    assert killed.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True)
    resumed = json.loads((other.assets / "kronos_adapter" / MONTH / "AAA.json").read_text())
    assert resumed["digest"] == whole["digest"]
    assert resumed["metrics"]["measured"]["resumed_at_epoch"] in (1, 2)


@pytest.fixture
def started(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Two stocks under way side by side in a process of its own, with a lot to do."""
    arguments = ["run", "--stocks", "AAA", "BBB", "--month", MONTH, "--base", "tiny", "--jobs", "2"]
    arguments += ["--model-type", "kronos", "--device", "cpu", "--epochs-scale", "50"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "retrain_assets.cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/" in line:
            break
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("whom", ["all of them, as a terminal", "the command alone"])
def test_ctrl_c_ends_with_130_and_leaves_no_process(
    started: subprocess.Popen[str], whom: str
) -> None:
    workers = psutil.Process(started.pid).children(recursive=True)
    send = os.kill if whom == "the command alone" else os.killpg
    send(started.pid, signal.SIGINT)
    assert started.wait(240) == 130
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


@pytest.mark.long
def test_workers_end_with_a_command_that_is_killed(started: subprocess.Popen[str]) -> None:
    workers = psutil.Process(started.pid).children(recursive=True)
    assert len(workers) >= 2
    started.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
