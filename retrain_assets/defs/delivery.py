"""Logging what waits in the outbox, now that MLflow answers: each run once and whole.

Sending may be cut short at any point and is begun again from the start of an entry: a run is found
by its key, and MLflow takes the same tag, parameter, value or file twice without doubling it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from retrain_assets.defs.outages import StoreAway, answering
from retrain_assets.defs.outbox import LOCAL, Entry, Kept, Outbox, Value
from retrain_assets.errors import RetrainError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

KEY_TAG = "retrain.key"
"""Tag of a run in MLflow: our name for it, by which it is found again."""
_BATCH = 1000  # values that MLflow takes in one call
_BATCH_PARAMS = 100
_WAIT = 5.0  # seconds for another process that is sending

Experiment = Callable[[str], str]
"""From an experiment's name to its id; it is created if need be."""


def deliver(outbox: Outbox, client: MlflowClient, store: str, experiment: Experiment) -> None:
    """Log what waits for a store, oldest first, and take it out of the outbox.

    What MLflow refuses is set aside with the reason. When the store is away again the rest waits
    on. Neither is an error of whoever happens to be there: both are warned of.
    """
    log = dg.get_dagster_logger()
    waiting = outbox.entries()
    if not waiting:
        return
    with outbox.sending(seconds=_WAIT) as alone:
        if not alone:
            return  # another process is at it
        held: set[str] = set()
        for entry in waiting:
            try:
                _deliver(outbox, entry, client, store, experiment, held)
            except StoreAway as error:
                log.warning(f"MLflow is away again, the rest waits in {outbox.root}: {error}")
                return
            except RetrainError as error:
                log.warning(f"what waited for MLflow was set aside: {entry.set_aside(str(error))}")
            except OSError as error:
                log.warning(f"{entry.folder} waits on for MLflow: {error}")


def _deliver(
    outbox: Outbox,
    entry: Entry,
    client: MlflowClient,
    store: str,
    experiment: Experiment,
    held: set[str],
) -> None:
    """Log one entry, unless it is being written or comes after one of the same run that is."""
    with outbox.claimed(entry) as free:
        if not entry.folder.is_dir():
            return
        kept = entry.read()
        if kept.store != store:
            return
        if not free or {kept.run, kept.key} & held:
            held.update(filter(None, (kept.run, kept.key)))
            return
        with answering(store):
            run_id = _send(entry, kept, client, experiment)
        _relink(kept, run_id)
        entry.remove()
        dg.get_dagster_logger().info(f"{kept.name} is in MLflow now: run {run_id}")


def _send(entry: Entry, kept: Kept, client: MlflowClient, experiment: Experiment) -> str:
    where = experiment(kept.experiment)
    found = find(client, where, kept.id) or find(client, where, kept.key)
    info = resumed(client, found, kept.tags) if found else begun(client, where, kept)
    log_params(client, info.run_id, kept.params)
    log_values(client, info.run_id, entry.metrics())
    for folder in entry.artifacts():
        client.log_artifacts(info.run_id, str(folder))
    # Of a writer that was killed only the time is known at which it wrote last.
    end = kept.end or entry.last_written
    client.set_terminated(info.run_id, status=kept.status or "KILLED", end_time=end)
    return str(info.run_id)


def find(client: MlflowClient, experiment_id: str, id: str) -> RunInfo | None:
    """The run with an id, MLflow's or ours; None if the store has none."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    if id.startswith(LOCAL):
        own = f"tags.`{KEY_TAG}` = '{id}'"
        runs = client.search_runs([experiment_id], filter_string=own, max_results=1)
        return runs[0].info if runs else None
    try:
        return client.get_run(id).info
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def begun(client: MlflowClient, experiment_id: str, kept: Kept) -> RunInfo:
    """A new run, which began when it says."""
    tags = kept.tags | {KEY_TAG: kept.key}
    return client.create_run(
        experiment_id, start_time=kept.start, run_name=kept.name, tags=tags
    ).info


def resumed(client: MlflowClient, info: RunInfo, tags: Mapping[str, str]) -> RunInfo:
    """A run to go on with, set running again; it may go on elsewhere, so its tags are set anew."""
    from mlflow.entities import RunTag

    client.update_run(info.run_id, status="RUNNING")
    client.log_batch(info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    return info


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Store parameters; those that are the same as before may be given again."""
    from mlflow.entities import Param

    entities = [Param(name, value) for name, value in params.items()]
    for start in range(0, len(entities), _BATCH_PARAMS):
        client.log_batch(run_id, params=entities[start : start + _BATCH_PARAMS])


def log_values(client: MlflowClient, run_id: str, values: Sequence[Value]) -> None:
    """Store values in batches; one with the same time and step is stored once."""
    from mlflow.entities import Metric

    entities = [Metric(name, value, when, step) for name, value, when, step in values]
    for start in range(0, len(entities), _BATCH):
        client.log_batch(run_id, metrics=entities[start : start + _BATCH])


def _relink(kept: Kept, run_id: str) -> None:
    """Let the tags of Dagster's runs that named our id name MLflow's."""
    if not kept.links or kept.run == run_id:
        return
    with _instance() as instance:
        for dagster_run, tag in kept.links.items():
            if instance is not None and instance.has_run(dagster_run):
                instance.add_run_tags(dagster_run, {tag: run_id})


@contextlib.contextmanager
def _instance() -> Iterator[dg.DagsterInstance | None]:
    """Dagster's instance: that of the step under way, else the environment's, if it names one."""
    try:
        own = dg.OpExecutionContext.get().instance
    except dg.DagsterInvariantViolationError:
        own = None
    if own is not None or not os.environ.get("DAGSTER_HOME"):
        yield own
        return
    with dg.DagsterInstance.get() as instance:
        yield instance
