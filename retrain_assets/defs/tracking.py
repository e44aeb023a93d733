"""Experiment tracking with MLflow: a run per adapter and per search, linked with Dagster's."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.partitions import month_and_symbol
from retrain_assets.errors import RetrainError
from retrain_assets.files import atomic_file
from retrain_assets.home import DAGSTER_PAGE, MLFLOW_PAGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

_SQLITE = "sqlite:///"
_BATCH = 1000  # metrics that MLflow takes in one call
_BATCH_PARAMS = 100
# A server that does not answer is reported in seconds; MLflow's own defaults wait for minutes.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class TrackedRun:
    """One run under way.

    id: MLflow's. url: its page, once `retrain mlflow` or your own server shows it.
    """

    id: str
    url: str
    client: MlflowClient

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Store parameters; those that are the same as before may be given again."""
        from mlflow.entities import Param

        entities = [Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(entities), _BATCH_PARAMS):
            self.client.log_batch(self.id, params=entities[start : start + _BATCH_PARAMS])

    def log_metrics(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Store metrics in batches: pairs of a step and its values; values that are no number
        are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [
            Metric(name, float(value), now, step)
            for step, values in rows
            for name, value in values.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(entities), _BATCH):
            self.client.log_batch(self.id, metrics=entities[start : start + _BATCH])

    def log_folder(self, folder: Path) -> None:
        """Store the files of a folder as the run's artifacts."""
        self.client.log_artifacts(self.id, str(folder))

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Store a table as CSV, which MLflow's page shows as a table."""
        self.client.log_text(self.id, table.to_csv(index=False), name)

    def log_figure(self, figure: Figure, name: str) -> None:
        """Store a figure; the name's ending says in which format."""
        self.client.log_figure(self.id, figure, name)


def partition_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Tags that lead from an MLflow run to the Dagster run and partition it belongs to."""
    month, symbol = month_and_symbol(context.partition_key)
    return {
        "month": month,
        "stock": symbol,
        "dagster.run_id": context.run.run_id,
        "dagster.run_url": f"{DAGSTER_PAGE}/runs/{context.run.run_id}",
        "dagster.asset": context.asset_key.to_user_string(),
        "dagster.partition": str(context.partition_key),
    }


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested mappings by dotted name; anything else is left out."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat_numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{name}"] = float(value)
    return found


class Tracking(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Where runs are tracked.

    uri: MLflow's tracking URI; a `sqlite:///` file needs no server.
    artifacts: folder for the artifacts of new experiments, where the server has none of its own.
    page: address under which MLflow's pages are shown.
    """

    uri: str
    artifacts: str
    page: str = MLFLOW_PAGE

    def client(self) -> MlflowClient:
        """A client of the store, which is created on first use.

        Raises RetrainError if the store does not answer within seconds.
        """
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        if self.uri.startswith(_SQLITE):
            _create_store(Path(self.uri.removeprefix(_SQLITE)), self.artifacts)
        with _answering(self.uri):
            client = mlflow.MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
        return client

    @contextlib.contextmanager
    def run(
        self,
        experiment: str,
        name: str,
        *,
        tags: Mapping[str, str],
        resume: str | None = None,
    ) -> Iterator[TrackedRun]:
        """A run named `name`: finished when the block ends, failed when it raises.

        resume: id of a run to go on with under these tags, if the store still has it. Raises
        RetrainError, saying what to do, when the store cannot be reached, now or later.
        """
        from mlflow.exceptions import MlflowException

        client = self.client()
        with _answering(self.uri):
            info = _resumed(client, resume, tags) or self._started(client, experiment, name, tags)
        page = self.uri if self.uri.startswith("http") else self.page
        url = f"{page}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        try:
            with _answering(self.uri):
                yield TrackedRun(info.run_id, url, client)
                client.set_terminated(info.run_id, status="FINISHED")
        except BaseException:
            # The store may be the very thing that failed; the first error is the one to tell.
            with contextlib.suppress(MlflowException):
                client.set_terminated(info.run_id, status="FAILED")
            raise

    def _started(
        self, client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]
    ) -> RunInfo:
        where = self._experiment(client, experiment)
        return client.create_run(where, run_name=name, tags=dict(tags)).info

    def _experiment(self, client: MlflowClient, name: str) -> str:
        from filelock import FileLock

        Path(self.artifacts).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(self.artifacts) / ".lock", timeout=60):
            if found := client.get_experiment_by_name(name):
                return str(found.experiment_id)
            local = self.uri.startswith(_SQLITE)
            location = (Path(self.artifacts) / name).as_uri() if local else None
            return str(client.create_experiment(name, artifact_location=location))


def _resumed(client: MlflowClient, run_id: str | None, tags: Mapping[str, str]) -> RunInfo | None:
    """The run to go on with, set running again; None if there is none in this store."""
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    if run_id is None:
        return None
    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise
    client.update_run(run_id, status="RUNNING")
    # It may go on in another Dagster run, on another device.
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return info


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Turn what MLflow raises, down to a server that is not there, into words."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RetrainError(
            f"MLflow at {uri} did not answer or refused: {error}. Start that server, or unset "
            "MLFLOW_TRACKING_URI to use the database beside the data, and run again: training "
            "goes on from its last checkpoint"
        ) from error


def _create_store(database: Path, artifacts: str) -> None:
    """Create MLflow's database once, whole: several processes may ask, one may be killed."""
    from filelock import FileLock

    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_suffix(".lock"), timeout=300):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_file(database) as partial:
            # Its constructor runs the migrations, which two processes must not do at once.
            store = SqlAlchemyStore(f"{_SQLITE}{partial}", Path(artifacts).as_uri())
            store.engine.dispose()
