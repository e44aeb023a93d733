"""An MLflow that can be away, for tests: its database answers, or is locked by somebody else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.defs import tracking
from retrain_assets.defs.tracking import Tracking
from retrain_assets.home import Home

_CALLS = (
    *("search_experiments", "get_experiment_by_name", "create_experiment", "search_runs"),
    *("create_run", "get_run", "update_run_info", "log_batch", "create_logged_model"),
)
_REGISTRY_CALLS = ("search_registered_models", "search_model_versions", "create_registered_model")


class Outage:
    """MLflow's database is away while `away`, or once it has answered `answers` more calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        from mlflow.store.model_registry import sqlalchemy_store as registry
        from mlflow.store.tracking import sqlalchemy_store as runs

        self.away, self.answers = False, -1
        self.asked = 0
        for store, names in (
            (runs.SqlAlchemyStore, _CALLS),
            (registry.SqlAlchemyStore, _REGISTRY_CALLS),
        ):
            for name in names:
                patch.setattr(store, name, self._guarded(getattr(store, name)))

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

        def guarded(*arguments: Any, **named: Any) -> Any:
            self.asked += 1
            if self.away or self.answers == 0:
                error = sqlite3.OperationalError("database is locked")
                raise MlflowException(error, TEMPORARILY_UNAVAILABLE) from error
            self.answers -= 1
            return call(*arguments, **named)

        return guarded

    def over(self) -> None:
        """Let MLflow answer from now on, and whoever waited in vain ask again."""
        self.away, self.answers = False, -1
        tracking._unanswered.clear()


def tracking_of(home: Home) -> Tracking:
    """The tracking of a data folder."""
    return Tracking(
        uri=f"sqlite:///{home.tracking / 'mlflow.db'}",
        artifacts=str(home.tracking / "artifacts"),
        home=str(home.root),
    )


def contents(of: Tracking, run_id: str) -> dict[str, Any]:
    """What MLflow knows of a run, its ids and times aside."""
    client = of.client()
    run = client.get_run(run_id)
    stored = [
        client.download_artifacts(run_id, file.path) for file in client.list_artifacts(run_id)
    ]
    files = [path for one in stored for path in (Path(one), *Path(one).rglob("*"))]
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": dict(run.data.params),
        "tags": {k: v for k, v in run.data.tags.items() if k != "retrain.key"},
        "metrics": {
            key: sorted((m.step, m.value) for m in client.get_metric_history(run_id, key))
            for key in run.data.metrics
        },
        "files": {path.name: path.read_bytes() for path in files if path.is_file()},
    }


def runs_of(of: Tracking, experiment: str) -> list[str]:
    """Ids of all runs of an experiment."""
    client = of.client()
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    return [run.info.run_id for run in runs]
