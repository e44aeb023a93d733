"""MLflow's experiments: found or created, each with a sentence on what its runs are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.evaluation.asset_names import params_name, refined_name
from retrain_assets.models.forecaster import families

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "mlflow.note.content"
"""Tag that MLflow's page shows as the description."""


def experiment_id(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    """The id of an experiment, which is created if need be.

    artifacts: the folder of all experiments' files; None where the server has its own. To be called
    under a lock: of two who create one, the second fails.
    """
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    location = (artifacts / name).as_uri() if artifacts else None
    note = f"{_runs(name)} Every name is explained in docs/mlflow.md."
    return str(client.create_experiment(name, artifact_location=location, tags={NOTE: note}))


def _runs(name: str) -> str:
    """What a run of an experiment is."""
    for family in families():
        told = {
            family: f"A run is one {family} adapter of a stock and month.",
            params_name(family): "A run is one search of inference parameters.",
            refined_name(family): "A run is one rung of a stock's ladder.",
        }
        if name in told:
            return told[name]
    return "A run is one decision on what goes into production."
