"""RETRAIN_DATABASE moves Dagster's and MLflow's tables to a real PostgreSQL server."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import mlflow
import pytest
from sqlalchemy import create_engine, text

from retrain_assets import database
from retrain_assets.database import Database
from retrain_assets.defs.outages import StoreAway
from retrain_assets.defs.resources import build_resources
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.retention_runs import RunHistory
from retrain_assets_tests import postgres
from retrain_assets_tests.finished import Finished, ran
from retrain_assets_tests.installed import MONTH
from retrain_assets_tests.ports import free_port

ADDRESS = f"postgresql://me:{postgres.ESCAPED}@db.example:6432/retraining"
SHOWN_LOCAL = "PostgreSQL at postgresql://me@127.0.0.1:"
SHOWN = "postgresql://me@db.example:6432/retraining"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the switch puts into the environment is gone after each test."""
    for name in (database.ENVIRONMENT, "PGPASSWORD", "DAGSTER_HOME", "RETRAIN_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.running() as address:
        yield address


@pytest.fixture
def switched(server: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An installation whose environment names an empty database."""
    monkeypatch.setenv(database.ENVIRONMENT, server)
    with create_engine(Database.from_environment().url("public")).begin() as connection:
        connection.execute(text("DROP SCHEMA IF EXISTS dagster, mlflow CASCADE"))
    home.prepare()
    return home


def test_addresses_go_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.ENVIRONMENT, f"{ADDRESS}?sslmode=require&options=-cjit%3Doff")
    found = Database.from_environment()
    assert found.shown == SHOWN
    assert found.url("mlflow") == (
        "postgresql+psycopg2://me@db.example:6432/retraining"
        "?connect_timeout=5&options=-cjit%3Doff+-csearch_path%3Dmlflow&sslmode=require"
    )
    assert os.environ["PGPASSWORD"] == postgres.PASSWORD
    assert "s3cret" not in f"{found!r} {found.shown}"


def test_an_address_without_a_password_leaves_it_to_postgresql(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(database.ENVIRONMENT, "postgres:///retraining?host=/run/postgresql")
    monkeypatch.setenv("PGPASSWORD", "mine")
    assert "host=%2Frun%2Fpostgresql" in Database.from_environment().url("dagster")
    assert os.environ["PGPASSWORD"] == "mine"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is not set"),
        ("s3cret", "is no address"),
        ("postgresql://me:s3cret@host:port/name", "is no address"),
        ("mysql://me:s3cret@host/name", "begins with 'mysql'"),
        ("postgresql://me:s3cret@host", "names no database"),
    ],
)
def test_what_is_no_address_is_refused_unrepeated(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(database.ENVIRONMENT, value)
    with pytest.raises(BadInput, match=message) as raised:
        Database.from_environment()
    assert "postgresql://user:password@host:port/dbname" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.ENVIRONMENT, ADDRESS)
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)
    with pytest.raises(BadInput, match=r"pip install 'retrain-assets\[postgres\]'"):
        Database.from_environment()


def test_the_settings_of_the_other_instance_are_its_own(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = home.dagster
    monkeypatch.setenv("DAGSTER_HOME", str(embedded))
    monkeypatch.setenv(database.ENVIRONMENT, ADDRESS)
    home.prepare()
    assert home.dagster == home.root / "dagster-postgres"
    assert os.environ["DAGSTER_HOME"] == str(home.dagster)
    ours, theirs = [(f / "dagster.yaml").read_text() for f in (home.dagster, embedded)]
    assert ours.startswith(theirs)
    assert "SchemaStorage" in ours.removeprefix(theirs)
    written = [file.read_text() for file in home.dagster.rglob("*") if file.is_file()]
    assert not [text for text in written if "s3cret" in text or "db.example" in text]
    monkeypatch.delenv(database.ENVIRONMENT)
    home.prepare()
    assert os.environ["DAGSTER_HOME"] == str(embedded)


def test_a_server_that_is_not_there_is_told_in_seconds(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"postgresql://me:s3cret@127.0.0.1:{free_port()}/retraining"
    monkeypatch.setenv(database.ENVIRONMENT, address)
    home.prepare()
    started = time.monotonic()
    message = rf"{re.escape(SHOWN_LOCAL)}\d+/retraining did not answer.* refused"
    # MLflow's is one that work goes on without.
    openings = {
        dg.DagsterInstance.get: RetrainError,
        build_resources(home)["tracking"].client: StoreAway,
    }
    for opening, error in openings.items():
        with pytest.raises(error, match=message) as raised:
            opening()
        assert "s3cret" not in str(raised.value)
    assert time.monotonic() - started < 20


def test_a_server_that_accepts_and_says_nothing_is_told_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        monkeypatch.setenv(database.ENVIRONMENT, f"postgresql://me:s3cret@127.0.0.1:{port}/name")
        started = time.monotonic()
        with pytest.raises(RetrainError, match="timeout expired"):
            Database.from_environment().has_table("mlflow", "runs")
        assert time.monotonic() - started < 60


def test_a_wrong_password_is_told_without_it(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(database.ENVIRONMENT, server.replace(postgres.ESCAPED, "wr0ng"))
    with pytest.raises(RetrainError, match="password authentication failed") as raised:
        Database.from_environment().has_table("mlflow", "runs")
    assert "wr0ng" not in str(raised.value)


@dg.asset(partitions_def=dg.DynamicPartitionsDefinition(name="stock"))
def counted() -> int:
    """Something to materialize."""
    return 1


OTHER_PROCESS = """
import json
import dagster as dg
import mlflow
from retrain_assets.definitions import defs

tracking = defs.resources["tracking"]
with dg.DagsterInstance.get() as instance:
    client = mlflow.MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("kronos")
    print(json.dumps({
        "partitions": list(instance.get_dynamic_partitions("stock")),
        "made": sorted(instance.get_materialized_partitions(dg.AssetKey("counted"))),
        "runs": [run.status.value for run in instance.get_runs()],
        "tracked": [run.data.metrics for run in client.search_runs([experiment.experiment_id])],
    }))
"""


def test_both_keep_their_tables_apart_and_another_process_sees_them(switched: Home) -> None:
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        instance.add_dynamic_partitions("stock", ["AAA"])
        assert dg.materialize([counted], partition_key="AAA", instance=instance).success
    tracking = build_resources(switched)["tracking"]
    with tracking.run("kronos", "AAA", tags={}) as run:
        run.log_metrics([(1, {"loss": 0.5})])
        run.log_table(made_table(), "table.csv")
    artifacts = list((switched.tracking / "artifacts" / "kronos").rglob("table.csv"))
    assert len(artifacts) == 1
    with create_engine(tracking.uri).connect() as connection:
        counts = {
            schema: connection.scalar(text(f"SELECT count(*) FROM {schema}.runs"))
            for schema in ("dagster", "mlflow")
        }
    assert counts == {"dagster": 1, "mlflow": 1}
    assert not (switched.dagster / "history").exists()
    other = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], capture_output=True, text=True, check=False
    )
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout.splitlines()[-1]) == {
        "partitions": ["AAA"],
        "made": ["AAA"],
        "runs": ["SUCCESS"],
        "tracked": [{"loss": 0.5}],
    }


def made_table() -> object:
    import pandas as pd

    return pd.DataFrame({"loss": [0.5]})


FIRST_USE = """
import dagster as dg
from retrain_assets.definitions import defs

with dg.DagsterInstance.get() as instance:
    instance.add_dynamic_partitions("stock", ["AAA"])
    assert instance.get_runs_count() == 0
with defs.resources["tracking"].run("kronos", "AAA", tags={}) as run:
    run.log_metrics([(1, {"loss": 0.5})])
"""


@pytest.mark.long
def test_four_processes_may_be_the_first_at_once(switched: Home) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", FIRST_USE], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, "\n".join(told)
    client = build_resources(switched)["tracking"].client()
    (experiment,) = client.search_experiments(filter_string="name = 'kronos'")
    assert len(client.search_runs([experiment.experiment_id])) == 4


@pytest.mark.long
def test_the_pipeline_gives_the_same_as_on_sqlite(finished_once: Finished, switched: Home) -> None:
    outcome = ran(switched, "AAA")["AAA"]
    assert outcome.failures == []
    for asset in ("kronos_adapter", "kronos_params", "comparison", "champion"):
        here, there = [
            timeless(read_json(place.assets / asset / MONTH / "AAA.json"))
            for place in (switched, finished_once.home)
        ]
        assert here == there, asset
    with dg.DagsterInstance.get() as instance:
        tags = instance.get_run_by_id(outcome.run_id).tags
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        RunHistory(instance).delete(outcome.run_id)
        assert instance.get_run_by_id(outcome.run_id) is None
        assert instance.all_logs(outcome.run_id) == []
    client = mlflow.MlflowClient(build_resources(switched)["tracking"].uri)
    assert len(client.get_metric_history(tags["mlflow/kronos"], "train.loss")) == 3
    champion = client.get_model_version_by_alias("kronos-AAA", "champion")
    assert int(champion.version) == 1  # text or a number, by the database


def timeless(value: object) -> object:
    """A record without what was measured by the clock."""
    clocked = {"measured", "latency_s", "latency_p95_s", "decided_at"}
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in clocked}
    return [timeless(part) for part in value] if isinstance(value, list) else value
