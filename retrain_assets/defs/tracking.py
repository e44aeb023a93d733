"""Experiment tracking with MLflow: a run per adapter and per search, linked with Dagster's.

MLflow keeps what the work says of itself; the work does not need it. While it is away what would
have been logged goes to the outbox, and is logged when MLflow is used again and answers.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.database import create_tracking
from retrain_assets.defs import delivery
from retrain_assets.defs.experiments import experiment_id
from retrain_assets.defs.outages import StoreAway, answering, knock, refusal, shown
from retrain_assets.defs.outbox import LOCAL, Kept, Outbox, Value, Writer, now
from retrain_assets.defs.partitions import month_and_symbol
from retrain_assets.files import atomic_file
from retrain_assets.home import DAGSTER_PAGE, MLFLOW_PAGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
# A server that does not answer is given up in seconds; MLflow's own defaults wait for minutes. Nor
# does it print a line for each run that ends, into a command's own output.
_SETTINGS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_REST = 60.0
"""Seconds for which a store that did not answer is not waited for by another run."""
_unanswered: dict[str, float] = {}
"""By address when this process last waited in vain."""


class TrackedRun:
    """One run under way, in MLflow or, once that is away, in the outbox.

    After the first call that MLflow does not answer nothing waits for it any more: the rest of the
    run goes to the outbox. What MLflow refuses raises RetrainError; CannotWrite is raised when the
    disk does not take what goes to the outbox.

    id: MLflow's, or ours while MLflow has not given one. url: its page, once `retrain mlflow` or
    your own server shows it; of a run that MLflow knows nothing of, its folder in the outbox.
    client: None if MLflow was away from the start.
    """

    def __init__(
        self, kept: Kept, outbox: Outbox, uri: str, client: MlflowClient | None, url: str = ""
    ) -> None:
        self.id, self.client, self._url = kept.id, client, url
        self.kept, self.outbox, self.uri = kept, outbox, uri
        self._writer: Writer | None = None

    @property
    def away(self) -> bool:
        """Whether what is logged now goes to the outbox."""
        return self._writer is not None

    @property
    def url(self) -> str:
        """Where it can be looked at."""
        return self._url or (self._writer.folder.as_uri() if self._writer else "")

    def shown(self) -> dg.MetadataValue[Any]:
        """For a partition's page: the link, or that the run is not in MLflow yet."""
        if self._writer is None:
            return dg.MetadataValue.url(self.url)
        return dg.MetadataValue.text(
            f"not in MLflow yet: it was away, and is given this run from {self._writer.folder} "
            "when it is used again"
        )

    def link(self, context: dg.AssetExecutionContext, name: str) -> None:
        """Let Dagster's run carry the id as its tag `mlflow/<name>`, now and when it changes."""
        tag = f"mlflow/{name}"
        context.instance.add_run_tags(context.run.run_id, {tag: self.id})
        self.kept.links[context.run.run_id] = tag
        if self._writer:
            self._writer.save()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Store parameters; those that are the same as before may be given again."""
        texts = {name: str(value) for name, value in params.items()}
        self._log(
            lambda client: delivery.log_params(client, self.id, texts),
            lambda writer: writer.params(texts),
        )

    def log_metrics(self, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Store metrics: pairs of a step and its values; values that are no number are left out."""
        when = now()
        values: list[Value] = [
            (name, float(value), when, step)
            for step, row in rows
            for name, value in row.items()
            if math.isfinite(value)
        ]
        self._log(
            lambda client: delivery.log_values(client, self.id, values),
            lambda writer: writer.metrics(values),
        )

    def log_folder(self, folder: Path) -> None:
        """Store the files of a folder as the run's artifacts."""
        self._log(
            lambda client: client.log_artifacts(self.id, str(folder)),
            lambda writer: writer.add_files(lambda to: _copied(folder, to)),
        )

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """Store a table as CSV, which MLflow's page shows as a table."""
        text = table.to_csv(index=False)
        self._log(
            lambda client: client.log_text(self.id, text, name),
            lambda writer: writer.add_files(
                lambda to: (to / name).write_text(text, encoding="utf-8")
            ),
        )

    def log_figure(self, figure: Figure, name: str) -> None:
        """Store a figure; the name's ending says in which format."""
        self._log(
            lambda client: client.log_figure(self.id, figure, name),
            lambda writer: writer.add_files(lambda to: figure.savefig(to / name)),
        )

    def end(self, status: str) -> None:
        """Say how it ended: FINISHED or FAILED. Nothing is logged after that."""
        self._log(
            lambda client: client.set_terminated(self.id, status=status),
            lambda writer: writer.close(status),
        )

    def went_away(self, error: StoreAway) -> Writer:
        """Log the rest of the run to the outbox."""
        if self._writer is None:
            self._writer = self.outbox.begin(self.kept)
            dg.get_dagster_logger().warning(
                f"{error}. The work goes on; what is to be logged waits in {self._writer.folder}"
            )
        return self._writer

    def _log(
        self, send: Callable[[MlflowClient], object], keep: Callable[[Writer], object]
    ) -> None:
        """Log something to MLflow, or keep it once MLflow is away."""
        if self._writer is None and self.client is not None:
            try:
                with answering(self.uri):
                    send(self.client)
                return
            except StoreAway as error:
                _unanswered[self.uri] = time.monotonic()
                self.went_away(error)
        assert self._writer is not None  # a run without a client begins in the outbox
        keep(self._writer)


def _copied(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, dirs_exist_ok=True)


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
    page: address under which MLflow's pages are shown. home: the data folder, whose champions the
    model registry is brought in line with; without one it is left alone.
    """

    uri: str
    artifacts: str
    page: str = MLFLOW_PAGE
    home: str = ""

    @property
    def outbox(self) -> Outbox:
        """What waits for MLflow, beside the artifacts."""
        return Outbox(Path(self.artifacts).parent / "outbox")

    @property
    def store(self) -> str:
        """What the store is called in the outbox: its address, but for a database beside it."""
        beside = f"{_SQLITE}{Path(self.artifacts).parent}/"
        return shown(self.uri.replace(beside, _SQLITE, 1))

    def client(self) -> MlflowClient:
        """A client of the store, which is created on first use and given what waits for it.

        Raises StoreAway if the store does not answer within seconds, RetrainError if it refuses.
        """
        try:
            client = self._connected()
        except StoreAway:
            _unanswered[self.uri] = time.monotonic()
            raise
        _unanswered.pop(self.uri, None)
        delivery.deliver(
            self.outbox, client, self.store, lambda name: self._experiment(client, name)
        )
        self._bring_registry_in_line(client)
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

        resume: id of a run to go on with under these tags, if the store still has it. When the
        store is away, now or later, the block goes on. Raises RetrainError, saying what to do,
        when it refuses.
        """
        from mlflow.exceptions import MlflowException

        kept = Kept(self.store, experiment, name, dict(tags))
        run = self._begun(kept, resume)
        try:
            yield run
        except BaseException as error:
            # The store may be the very thing that failed; the first error is the one to tell.
            with contextlib.suppress(Exception):
                run.end("FAILED")
            if isinstance(error, MlflowException):
                raise refusal(self.uri, error) from error
            raise
        run.end("FINISHED")

    def run_of(self, client: MlflowClient, kept: Kept) -> str:
        """MLflow's id of a run that is over; a run that the store has not is made up for."""
        where = self._experiment(client, kept.experiment)
        for known in (kept.id, kept.key):
            if found := delivery.find(client, where, known):
                return str(found.run_id)
        info = delivery.begun(client, where, kept)
        client.set_terminated(info.run_id, status="FINISHED")
        return str(info.run_id)

    def _begun(self, kept: Kept, resume: str | None) -> TrackedRun:
        """A run that begins or goes on: in MLflow, or in the outbox if that is away."""
        try:
            client = self._client_without_waiting_again()
            if resume and self.outbox.waits_for(resume):
                raise StoreAway(f"an earlier part of {kept.name} still waits in {self.outbox.root}")
            with answering(self.uri):
                where = self._experiment(client, kept.experiment)
                found = delivery.find(client, where, resume) if resume else None
                info = (
                    delivery.resumed(client, found, kept.tags)
                    if found
                    else delivery.begun(client, where, kept)
                )
        except StoreAway as error:
            return self._away(kept, resume, error)
        kept.run = str(info.run_id)
        page = self.uri if self.uri.startswith("http") else self.page
        url = f"{page}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        return TrackedRun(kept, self.outbox, self.uri, client, url)

    def _client_without_waiting_again(self) -> MlflowClient:
        if time.monotonic() - _unanswered.get(self.uri, -_REST) < _REST:
            raise StoreAway(f"MLflow at {shown(self.uri)} did not answer a moment ago")
        return self.client()

    def _away(self, kept: Kept, resume: str | None, error: StoreAway) -> TrackedRun:
        if resume and resume.startswith(LOCAL):
            kept.key = resume
        elif resume:
            kept.run = resume
        run = TrackedRun(kept, self.outbox, self.uri, None)
        run.went_away(error)
        return run

    def _connected(self) -> MlflowClient:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        with answering(self.uri):
            if self.uri.startswith(_SQLITE):
                _create_store(Path(self.uri.removeprefix(_SQLITE)), self.artifacts)
            create_tracking(self.uri, self.artifacts)
            knock(self.uri)
            import mlflow

            client = mlflow.MlflowClient(tracking_uri=self.uri)
            client.search_experiments(max_results=1)
        return client

    def _bring_registry_in_line(self, client: MlflowClient) -> None:
        lagging = self.outbox.lagging(self.store)
        if not (self.home and lagging):
            return
        from retrain_assets.defs import registry
        from retrain_assets.home import Home

        registry.catch_up(self, client, Home(Path(self.home)), lagging)

    def _experiment(self, client: MlflowClient, name: str) -> str:
        from filelock import FileLock

        Path(self.artifacts).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(self.artifacts) / ".lock", timeout=60):
            # A server has a place of its own for artifacts, a database has none.
            local = self.uri.startswith((_SQLITE, "postgresql"))
            return experiment_id(client, name, Path(self.artifacts) if local else None)


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
