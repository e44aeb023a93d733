"""Which runs of Dagster's and MLflow's history have served, and how they are deleted.

Deleting a run takes its events with it, and with those the knowledge that it made an asset's
partition. So the run that made a partition last stays, as does the one that was its last.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.defs.requests import (
    BARS_TAG,
    FINAL_TAG,
    PARTITION_TAG,
    STOCK_TAG,
    unfinished,
)
from retrain_assets.errors import RetrainError
from retrain_assets.evaluation.asset_names import params_name, refined_name
from retrain_assets.models.forecaster import families
from retrain_assets.retention import Needed, size_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from retrain_assets.defs.tracking import Tracking

_FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
_PAGE = 500
_GC_AT_ONCE = 100


@dataclass(frozen=True)
class OldRun:
    """A run that would go. reason: for people. size: in bytes, as far as it has files."""

    id: str
    reason: str
    size: int


class RunHistory:
    """Dagster's runs."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        # Asked of every run of a partition, and answered by the instance once.
        self._last = cache(self._last_of)
        self._maker = cache(self._maker_of)

    def unfinished_stocks(self) -> set[str]:
        """Stocks of which a run waits or is under way."""
        return {key.split("|")[-1] for key in unfinished(self._instance)}

    def old(self, days: int, now: dt.datetime) -> Iterator[OldRun]:
        """Finished runs older than so many days that nothing needs, the latest first."""
        filters = dg.RunsFilter(statuses=_FINISHED, created_before=now - dt.timedelta(days=days))
        cursor = None
        while True:
            page = self._instance.get_run_records(filters, limit=_PAGE, cursor=cursor)
            for record in page:
                if not self._is_needed(record.dagster_run):
                    run_id = record.dagster_run.run_id
                    size = sum(size_of(path) for path in self._files(run_id))
                    reason = f"{record.dagster_run.status.value.lower()} over {days} days ago"
                    yield OldRun(run_id, reason, size)
            if len(page) < _PAGE:
                return
            cursor = page[-1].dagster_run.run_id

    def delete(self, run_id: str) -> None:
        """Delete a run with its events and the output that it printed.

        The run itself goes last but for its files, so that a deletion that was interrupted is
        found again.
        """
        with contextlib.suppress(NotImplementedError):  # where logs are kept elsewhere
            self._instance.compute_log_manager.delete_logs(prefix=[run_id])
        self._instance.event_log_storage.delete_events(run_id)
        files = self._files(run_id)
        self._instance.delete_run(run_id)
        for path in [*files, *self._files(run_id)]:
            if path.is_file():
                path.unlink()

    def _is_needed(self, run: dg.DagsterRun) -> bool:
        partition, stock = run.tags.get(PARTITION_TAG), run.tags.get(STOCK_TAG)
        if partition and self._last(PARTITION_TAG, partition, None) == run.run_id:
            return True  # it says how the partition stands, and why it failed
        for tag in (BARS_TAG, FINAL_TAG):  # what schedule and sensors remember by
            if tag in run.tags and stock and self._last(STOCK_TAG, stock, tag) == run.run_id:
                return True
        made = self._instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        for entry in made:
            event = entry.get_dagster_event()
            if event.asset_key and self._maker(event.asset_key, event.partition) == run.run_id:
                return True
        return False

    def _last_of(self, tag: str, value: str, carrying: str | None) -> str | None:
        """The newest run with a tag of this value, among those that carry another tag."""
        cursor = None
        while True:
            filters = dg.RunsFilter(tags={tag: value})
            page = self._instance.get_runs(filters, limit=_PAGE, cursor=cursor)
            for run in page:
                if carrying is None or carrying in run.tags:
                    return str(run.run_id)
            if len(page) < _PAGE:
                return None
            cursor = page[-1].run_id

    def _maker_of(self, asset: dg.AssetKey, partition: str | None) -> str | None:
        """The run that materialized an asset's partition last."""
        wanted = dg.AssetRecordsFilter(
            asset_key=asset, asset_partitions=[partition] if partition else None
        )
        found = self._instance.fetch_materializations(wanted, limit=1).records
        return found[0].run_id if found else None

    def _files(self, run_id: str) -> list[Path]:
        """Files and folders of a run: its database of events, where each has one, and its logs."""
        from dagster._core.storage.event_log import SqliteEventLogStorage
        from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

        found: list[Path] = []
        events, logs = self._instance.event_log_storage, self._instance.compute_log_manager
        if isinstance(events, SqliteEventLogStorage):
            shard = events.path_for_shard(run_id)
            found += [Path(shard + ending) for ending in ("", "-wal", "-shm")]
        if isinstance(logs, LocalComputeLogManager):
            found.append(Path(logs.get_captured_local_path([run_id], "x")).parent / run_id)
        return [path for path in found if path.exists()]


class TrackedHistory:
    """MLflow's runs of trainings and searches; the registry and its models stay as they are."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    @property
    def can_free(self) -> bool:
        """Whether deleted runs can be freed from here, and not by a server alone."""
        return not self._tracking.uri.startswith("http")

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is no file of the data folder."""
        return not self._tracking.uri.startswith("sqlite:///")

    def old(self, keep: Mapping[str, Needed]) -> Iterator[OldRun]:
        """Runs of partitions that nothing needs, deleted ones that still hold space among them.

        keep: by stock. Raises RetrainError if the store does not answer.
        """
        client = self._tracking.client()
        for run in self._runs(client):
            tags = run.data.tags
            needed, month = keep.get(tags.get("stock", "")), tags.get("month", "")
            if needed is None or not month:
                continue
            if needed.whole(month) or _is_mentioned(needed, month):
                continue
            deleted = run.info.lifecycle_stage == "deleted"
            if deleted and not self.can_free:
                continue
            reason = f"{tags['stock']} {month}, before {needed.since}"
            yield OldRun(run.info.run_id, reason, _artifacts(run))

    def delete(self, run_ids: list[str]) -> None:
        """Delete runs, and free what they hold if that can be done from here."""
        client = self._tracking.client()
        for run_id in run_ids:
            if client.get_run(run_id).info.lifecycle_stage == "active":
                client.delete_run(run_id)
        if not self.can_free:
            return
        for start in range(0, len(run_ids), _GC_AT_ONCE):
            part = ",".join(run_ids[start : start + _GC_AT_ONCE])
            command = [sys.executable, "-m", "mlflow", "gc", "--run-ids", part]
            command += ["--backend-store-uri", self._tracking.uri]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"MLFLOW_TRACKING_URI": self._tracking.uri},
            )
            if done.returncode:
                raise RetrainError(f"`mlflow gc` did not free what was deleted: {done.stderr}")

    def _runs(self, client: MlflowClient) -> Iterator[Run]:
        from mlflow.entities import ViewType

        names = [naming for name in families() for naming in (name, params_name(name))]
        names += [refined_name(name) for name in families()]
        found = [client.get_experiment_by_name(name) for name in names]
        ids = [experiment.experiment_id for experiment in found if experiment is not None]
        token = None
        while ids:
            page = client.search_runs(
                ids, run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return


def _is_mentioned(needed: Needed, month: str) -> bool:
    return any(name.split("/")[1] == month for name in needed.adapters)


def _artifacts(run: Run) -> int:
    """Bytes of a run's artifacts, where they lie on this machine."""
    uri = run.info.artifact_uri or ""
    folder = Path(uri.removeprefix("file://"))
    return size_of(folder) if uri.startswith("file://") and folder.is_dir() else 0
