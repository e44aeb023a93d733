"""What `mlflow models serve` runs: a logged version that answers over HTTP.

A model's folder holds a JSON file, the adapter's safetensors, and a script of three lines that
imports this module; no pickle is written or read. The base stays in the data folder, and its
fingerprint is checked when the model is loaded.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from retrain_assets.errors import RetrainError
from retrain_assets.evaluation.live_forecaster import (
    COLUMNS,
    MAX_AGE_SESSIONS,
    PRICES,
    LiveForecaster,
)
from retrain_assets.evaluation.versions import Version
from retrain_assets.files import read_json, write_json
from retrain_assets.home import ENVIRONMENT, Home
from retrain_assets.market.bars import BAR_COLUMNS, VALUE_COLUMNS, BarStore
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.universe import Stock

CONTENT = "version"
"""Name of a model's only artifact: a folder."""
DEFAULT_HORIZON = 64
SCRIPT = '''"""Serves a version of retrain_assets; see retrain_assets/served.py."""

from mlflow.models import set_model

from retrain_assets.served import ServedForecaster

set_model(ServedForecaster())
'''
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec("string", "session"),
            *(ColSpec("double", name) for name in VALUE_COLUMNS),
            ColSpec("string", "symbol", required=False),
        ]
    ),
    outputs=Schema([ColSpec("double" if name in PRICES else "string", name) for name in COLUMNS]),
    params=ParamSchema(
        [
            ParamSpec("horizon", "long", DEFAULT_HORIZON),
            # Empty is now: a parameter of MLflow needs a default of its type.
            ParamSpec("as_of", "string", ""),
        ]
    ),
)
"""Bars with their sessions as YYYY-MM-DD in; horizon in sessions, as_of as `predict` takes it."""

_TOLD = "version.json"
_MODELS = "models"
_log = logging.getLogger(__name__)


class ServedForecaster(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """What MLflow loads and asks for forecasts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the version that the model's artifacts hold, and its base from the data folder."""
        self.forecaster = read_content(Path(context.artifacts[CONTENT]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """`LiveForecaster.predict` with dates and moments as ISO text, in and out.

        What it refuses, and why, is MLflow's error for bad values: over HTTP an answer of 400.
        """
        asked = dict(params or {})
        horizon, as_of = asked.get("horizon", DEFAULT_HORIZON), asked.get("as_of") or None
        try:
            table = self.forecaster.predict(_dated(model_input), int(horizon), as_of=as_of)
        except RetrainError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        for note in table.attrs["notes"]:
            _log.warning("%s: %s", self.forecaster.symbol, note)
        return table.assign(
            session=table["session"].dt.strftime("%Y-%m-%d"),
            close_time=[moment.isoformat() for moment in table["close_time"]],
        )


def _dated(table: pd.DataFrame) -> pd.DataFrame:
    """Sessions as dates; what is none becomes empty, which is refused with its row."""
    session = pd.to_datetime(table["session"], format="%Y-%m-%d", errors="coerce")
    return table.assign(session=session)


def write_content(folder: Path, version: Version, stock: Stock, *, home: Home) -> None:
    """Write the artifact of a version: what it is, and a copy of its adapter.

    home: the data folder, to be remembered for the base. Raises CheckpointError if the adapter's
    folder is gone.
    """
    told = {
        "version": version.to_json(),
        "symbol": stock.symbol,
        "calendar": stock.calendar,
        "names": list(stock.aliases),
        "max_age_sessions": MAX_AGE_SESSIONS,
        "home": str(home.root),
    }
    write_json(folder / _TOLD, told)
    if version.adapter is not None:
        record = AdapterRecord.from_json(version.adapter)
        shutil.copytree(ModelStore(home.models).path(record), folder / _MODELS / record.folder)


def read_content(folder: Path) -> LiveForecaster:
    """The forecaster of an artifact that `write_content` wrote, wherever it was copied to.

    The data folder, for the base and for bars to hold others against, is $RETRAIN_HOME, or else
    the one that was remembered. Raises BadInput if there is none, and CheckpointError, saying
    which file is gone or altered, when base or adapter are not those of the version.
    """
    told = read_json(folder / _TOLD)
    home = Home.find(None if os.environ.get(ENVIRONMENT) else Path(told["home"]))
    return LiveForecaster.load(
        Version.from_json(told["version"]),
        symbol=told["symbol"],
        calendar=told["calendar"],
        names=told["names"],
        bars=BarStore(home.market),
        store=ModelStore(folder / _MODELS),
        checkpoints=home.checkpoints,
        max_age_sessions=told["max_age_sessions"],
    )


def example(
    version: Version, stock: Stock, *, home: Home
) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Bars and parameters of a request that works, from the stored bars; None without any."""
    store = BarStore(home.market)
    if not store.has(stock.symbol):
        return None
    bars = store.read(stock.symbol).tail(version.context).reset_index(drop=True)
    session = bars["session"].dt.strftime("%Y-%m-%d")
    params = {"horizon": DEFAULT_HORIZON, "as_of": session.iloc[-1]}
    return bars.assign(session=session)[list(BAR_COLUMNS)], params
