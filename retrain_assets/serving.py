"""Versions in MLflow: stored with a run, registered by name, and served from there.

    MLFLOW_TRACKING_URI=sqlite:///data/mlflow/mlflow.db \\
        mlflow models serve -m models:/kronos-NVDA@champion --env-manager local

`retrain_assets.served` is what answers then. Everything here goes through a client, so nothing
of MLflow's global state is touched and several stores can be used at once.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from retrain_assets import __version__
from retrain_assets.files import checked_symbol
from retrain_assets.served import CONTENT, SCRIPT, SIGNATURE, example, write_content

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from retrain_assets.evaluation.versions import Version
    from retrain_assets.home import Home
    from retrain_assets.universe import Stock

CHAMPION = "champion"
"""The alias of the version that is in production."""


def registered_name(family: str, symbol: str) -> str:
    """Name under which versions of a family, or of naive, are registered for a symbol."""
    return f"{family}-{checked_symbol(symbol)}"


def promote(
    client: MlflowClient,
    version: Version,
    stock: Stock,
    *,
    home: Home,
    run_id: str,
    alias: str = CHAMPION,
) -> int:
    """Give a version an alias of its family and symbol in MLflow; returns its number there.

    A version that is registered already is not stored again. Otherwise as `log_model`.
    """
    name = registered_name(version.family, stock.symbol)
    number = find(client, name, version)
    if number is None:
        number = register(client, log_model(client, version, stock, home=home, run_id=run_id), name)
    set_alias(client, name, alias, number)
    return number


def log_model(
    client: MlflowClient, version: Version, stock: Stock, *, home: Home, run_id: str
) -> str:
    """Store a version as a model that a run has made; returns its URI, `models:/<id>`.

    home: the data folder with its adapter and base. It lies with the artifacts of the run's
    experiment. Raises CheckpointError if the adapter's folder is gone; then nothing is stored.
    """
    tags = {
        "version": version.id,
        "title": version.title,
        "stock": stock.symbol,
        "family": version.family,
        "base": version.base,
        "month": version.month,
    }
    experiment = client.get_run(run_id).info.experiment_id
    # The name of a model must not hold dots, a symbol may.
    name = registered_name(version.family, stock.symbol).replace(".", "_")
    with tempfile.TemporaryDirectory() as folder:
        write_content(Path(folder) / CONTENT, version, stock, home=home)
        model = client.create_logged_model(
            experiment, name, source_run_id=run_id, tags=tags, model_type="forecaster"
        )
        described = Model(
            artifact_path=model.artifact_location,
            run_id=run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
            metadata=tags,
        )
        try:
            written = save_model(Path(folder), described, example(version, stock, home=home))
            client.log_model_artifacts(model.model_id, str(written))
        except BaseException:
            # The store may be the very thing that failed; the first error is the one to tell.
            with contextlib.suppress(MlflowException):
                client.finalize_logged_model(model.model_id, "FAILED")
            raise
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return f"models:/{model.model_id}"


def save_model(folder: Path, model: Model, request: object) -> Path:
    """Lay out a model as MLflow wants it, beside its content; returns where.

    folder: holds the folder `CONTENT`. request: what the model can be asked, kept as its example.
    """
    script, written = folder / "model.py", folder / "model"
    script.write_text(SCRIPT, encoding="utf-8")
    # A progress bar for copying a few files would only stand in the log.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow.pyfunc.save_model(
        written,
        python_model=script,
        artifacts={CONTENT: str(folder / CONTENT)},
        signature=SIGNATURE,
        input_example=request,
        mlflow_model=model,
        # Named, because to find them out MLflow would load the model and ask an index.
        pip_requirements=[f"retrain-assets=={__version__}", f"mlflow=={mlflow.__version__}"],
    )
    return written


def register(client: MlflowClient, uri: str, name: str) -> int:
    """Register a model as the next version of `name`; returns the version's number.

    uri: as `log_model` returned it.
    """
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
    model = client.get_logged_model(uri.removeprefix("models:/"))
    created = client.create_model_version(
        name,
        # Given the URI instead, MLflow looks it up in its default store.
        model.artifact_location,
        run_id=model.source_run_id,
        tags=dict(model.tags),
        model_id=model.model_id,
    )
    return int(created.version)


def find(client: MlflowClient, name: str, version: Version) -> int | None:
    """The latest number under which a version is registered as `name`, None if it is not."""
    found = client.search_model_versions(f"name = '{name}' and tag.version = '{version.id}'")
    return max((int(one.version) for one in found), default=None)


def set_alias(client: MlflowClient, name: str, alias: str, number: int) -> None:
    """Let `models:/<name>@<alias>` be this version of a registered model."""
    client.set_registered_model_alias(name, alias, str(number))
