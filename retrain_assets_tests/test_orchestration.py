"""The benchmark of orchestration plays back what it should, and runs start warm."""

from __future__ import annotations

import multiprocessing.forkserver
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._grpc.server import DagsterApiServer

from benchmarks import no_compute, orchestration
from benchmarks.orchestration import BACKFILL, DEFAULT, OURS, PAGE, Row, Side
from retrain_assets import cards, warm
from retrain_assets.cards import Card
from retrain_assets.defs.partitions import partition_key, register_stocks
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets_tests.finished import QUICK, Finished
from retrain_assets_tests.installed import MONTH
from retrain_assets_tests.test_launcher import SETTINGS, wait_for

ROOT = Path(__file__).parents[1]


def test_a_stock_is_played_back(
    finished_once: Finished, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(no_compute.TEMPLATE_VARIABLE, str(finished_once.home.root))
    monkeypatch.setenv(no_compute.SYMBOL_VARIABLE, "AAA")
    monkeypatch.setenv(no_compute.EXECUTOR_VARIABLE, OURS)
    no_compute.play(monkeypatch.setattr)
    monkeypatch.setattr("torch.nn.Module.__call__", lambda *_: pytest.fail("a model was run"))
    store = BarStore(home.market)
    store.write("P00", store.read("AAA"), source="made")
    with dg.DagsterInstance.get() as instance:
        register_stocks(instance, ["P00"])
        result = (
            no_compute.build()
            .resolve_job_def(QUICK.job)
            .execute_in_process(
                instance=instance,
                partition_key=partition_key(MONTH, "P00"),
                run_config=QUICK.run_config(),
                asset_selection=[dg.AssetKey(name) for name in QUICK.assets()],
            )
        )
    assert result.success
    passed = {check.check_name for check in result.get_asset_check_evaluations() if check.passed}
    assert {"adapter_reloads", "params_reproduce"} < passed
    for name in ("kronos_adapter", "kronos_params", "comparison", "champion"):
        made = read_json(home.assets / name / MONTH / "P00.json")
        first = read_json(finished_once.home.assets / name / MONTH / "AAA.json")
        assert made["symbol"] == "P00"
        assert set(made) == set(first)
    assert (home.models / result.output_for_node("kronos_adapter")["folder"]).is_dir()


def test_the_table_has_the_ratio_of_like_to_like() -> None:
    default = Side(DEFAULT, warm=False)
    rows = [
        Row(Side(OURS), PAGE, 6, 1.0, 2.0),
        Row(Side(OURS), BACKFILL, 6, 30.0, 4.0),
        Row(default, PAGE, 6, 1.0, 12.0),
    ]
    ratios = [line.split()[-1] for line in orchestration.table(rows)[1:]]
    assert ratios == ["6.0", "4.00", "1.0"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A code server as far as it has chosen how to start runs."""
    # Both are put back when the test is over.
    monkeypatch.setattr(DagsterApiServer, "_mp_ctx", None, raising=False)
    monkeypatch.setattr(multiprocessing.forkserver._forkserver, "_preload_modules", [])
    monkeypatch.setattr(warm, "_warm_up", lambda _, ready: ready.set())
    made = object.__new__(DagsterApiServer)
    made.__dict__["_mp_ctx"] = multiprocessing.get_context("spawn")
    return made


def test_a_code_server_forks_its_runs(server: Any) -> None:
    warm.start_runs_warm()
    wait_for(lambda: server._mp_ctx.get_start_method() == "forkserver")
    assert "retrain_assets.definitions" in multiprocessing.forkserver._forkserver._preload_modules


def test_until_it_is_warm_runs_start_as_ever(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_warm_up", lambda *_: None)
    warm.start_runs_warm()
    assert server._mp_ctx.get_start_method() == "spawn"


def test_it_can_be_told_not_to(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(warm.COLD_VARIABLE, "1")
    warm.start_runs_warm()
    assert server._mp_ctx.get_start_method() == "spawn"


def test_torch_waits_for_a_card_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "torch" in warm.imports()
    monkeypatch.setattr(cards, "usable", lambda: [Card(0, None, "GPU-0", "H100", 8, 9, True)])
    assert not {"torch", "peft"} & set(warm.imports())


@pytest.mark.long
def test_nothing_else_that_is_imported_imports_torch(template: Path) -> None:
    names = [name for name in warm.imports() if name not in warm._MODELS]
    code = f"import importlib, sys\nfor n in {names}: importlib.import_module(n)\n"
    code += "print('torch' in sys.modules)"
    reply = subprocess.run(
        [sys.executable, "-c", code],
        env={"RETRAIN_HOME": str(template), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert reply.stdout.strip() == "False"


@pytest.mark.long
@pytest.mark.parametrize("cold", [False, True])
def test_a_run_finds_its_imports_done(
    home: Home, monkeypatch: pytest.MonkeyPatch, cold: bool
) -> None:
    monkeypatch.setenv(warm.COLD_VARIABLE, "1" if cold else "")
    target = ModuleTarget("retrain_assets_tests.warm_location", None, str(ROOT), "tests")
    with (
        dg.instance_for_test(overrides=SETTINGS) as instance,
        WorkspaceProcessContext(instance, target) as process_context,
    ):
        workspace = process_context.create_request_context()
        location = workspace.get_code_location("tests")
        job = next(iter(location.get_repositories().values())).get_full_job("look")

        def seen() -> tuple[str, str]:
            """What a run says of how it was started, and of what it had imported."""
            run = create_run_for_test(
                instance,
                job_name="look",
                remote_job_origin=job.get_remote_origin(),
                job_code_origin=job.get_python_origin(),
            )
            instance.launch_run(run.run_id, workspace)
            wait_for(lambda: instance.get_run_by_id(run.run_id).is_finished)
            tags = instance.get_run_by_id(run.run_id).tags
            return tags["parent"], tags["imported"]

        if cold:
            assert seen() == ("another", "False")
        else:  # at first it imports, and runs start as ever
            wait_for(lambda: seen() == ("forkserver", "True"), seconds=240)
