"""The data folder is found, refused with a remedy, and prepared without overwriting anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from retrain_assets.errors import BadInput
from retrain_assets.home import Home


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "universe.yaml").write_text("stocks: []\n")
    # Set first, so that what `prepare` puts there is undone after the test.
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.setenv("RETRAIN_HOME", "")
    for name in ("GRPC_TIMEOUT_SECONDS", "BACKFILL_RETRY_DEFINITION_CHANGED_ERROR"):
        monkeypatch.setenv(f"DAGSTER_{name}", "")
        monkeypatch.delenv(f"DAGSTER_{name}")
    return folder


def test_found_by_argument_environment_or_working_folder(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Home.find(data).root == data
    monkeypatch.chdir(data.parent)
    assert Home.find().root == data
    monkeypatch.chdir("/")
    monkeypatch.setenv("RETRAIN_HOME", str(data))
    assert Home.find().root == data


def test_a_missing_or_foreign_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no data folder .*nowhere: run from .* RETRAIN_HOME"):
        Home.find(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"lacks universe\.yaml"):
        Home.find(tmp_path)


def test_prepare_writes_our_settings_once(data: Path) -> None:
    home = Home.find(data)
    home.prepare()
    settings = home.dagster / "dagster.yaml"
    written = yaml.safe_load(settings.read_text())
    assert written["run_launcher"] == {
        "module": "retrain_assets.launcher",
        "class": "SupervisedRunLauncher",
    }
    assert written["telemetry"] == {"enabled": False}
    assert os.environ["DAGSTER_HOME"] == str(home.dagster)
    assert os.environ["RETRAIN_HOME"] == str(data)
    # A process that takes long to start is waited for by the caller and by the monitor alike.
    patience = written["run_monitoring"]["start_timeout_seconds"]
    assert os.environ["DAGSTER_GRPC_TIMEOUT_SECONDS"] == str(patience) == "300"
    settings.write_text("# mine\n")
    home.prepare()
    assert settings.read_text() == "# mine\n"


def test_ticks_are_forgotten_soonest_where_nothing_was_done(data: Path) -> None:
    import dagster as dg
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import TickStatus

    Home.find(data).prepare()
    with dg.DagsterInstance.get() as instance:
        for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
            days = instance.get_tick_retention_settings(kind)
            assert 0 < days[TickStatus.SKIPPED] <= 7 < days[TickStatus.FAILURE] <= 180


def test_prepare_respects_another_instance(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/srv/dagster")
    Home.find(data).prepare()
    assert os.environ["DAGSTER_HOME"] == "/srv/dagster"


def test_the_workspace_of_a_clone_is_the_packaged_one() -> None:
    root = Path(__file__).parents[1]
    packaged = root / "retrain_assets" / "workspace.yaml"
    assert (root / "workspace.yaml").read_text() == packaged.read_text()
