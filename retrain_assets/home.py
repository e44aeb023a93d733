"""The data folder: where bars, checkpoints, models, results and both databases lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from retrain_assets.database import switched_on
from retrain_assets.errors import BadInput
from retrain_assets.files import write_text

ENVIRONMENT = "RETRAIN_HOME"
INSTANCE_SETTINGS = "dagster.yaml"
SETTINGS = (INSTANCE_SETTINGS, "workspace.yaml")
DAGSTER_PAGE = "http://127.0.0.1:3000"
MLFLOW_PAGE = "http://127.0.0.1:5000"

# Starting a run takes the imports of a new process; a machine that is very busy needs more than
# Dagster's minute for them, and then a run would count as failed that has begun. A backfill waits
# for code that cannot be loaded at the moment, instead of failing for good.
# Neither Dagster (in its settings) nor MLflow tells its makers anything.
_PROCESSES = {
    "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
    "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_EMBEDDED, _POSTGRES = "dagster", "dagster-postgres"
# Added to the settings of an instance whose history is in PostgreSQL.
_POSTGRES_STORAGE = """\
# Runs, events and schedules are in the database that RETRAIN_DATABASE names.
storage:
  custom:
    module: retrain_assets.storage
    class: SchemaStorage
"""


@dataclass(frozen=True)
class Home:
    """Paths below one data folder.

    root: absolute path of the folder; it holds `universe.yaml`, `market/` and `checkpoints/`,
    and everything that runs write is put beside them.
    """

    root: Path

    @classmethod
    def find(cls, root: Path | None = None) -> Home:
        """The data folder `root`, else `$RETRAIN_HOME`, else `data` in the current folder.

        Raises BadInput, saying what to do, if there is no such folder or it is not one of ours.
        """
        chosen = root or Path(os.environ.get(ENVIRONMENT) or "data")
        folder = chosen.expanduser().resolve()
        remedy = (
            "run from the folder of your clone, or set "
            f"{ENVIRONMENT} to a data folder that holds universe.yaml"
        )
        if not folder.is_dir():
            raise BadInput(f"there is no data folder {folder}: {remedy}")
        if not (folder / "universe.yaml").is_file():
            raise BadInput(f"{folder} is no data folder, it lacks universe.yaml: {remedy}")
        return cls(folder)

    @property
    def universe(self) -> Path:
        """The file that lists the symbols."""
        return self.root / "universe.yaml"

    @property
    def market(self) -> Path:
        """The bar store."""
        return self.root / "market"

    @property
    def inbox(self) -> Path:
        """Where files with new bars are dropped; beside them what was taken in and refused."""
        return self.root / "inbox"

    @property
    def checkpoints(self) -> Path:
        """Base models."""
        return self.root / "checkpoints"

    @property
    def models(self) -> Path:
        """Adapters, one folder a family, month and symbol."""
        return self.root / "models"

    @property
    def assets(self) -> Path:
        """What the assets return: one JSON file a partition."""
        return self.root / "assets"

    @property
    def results(self) -> Path:
        """Reports for people and scripts."""
        return self.root / "results"

    @property
    def production(self) -> Path:
        """What is in production, one folder a symbol, and every decision taken."""
        return self.root / "production"

    @property
    def export(self) -> Path:
        """The files of the retraining guide, for the current champions."""
        return self.root / "export"

    @property
    def tracking(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlflow"

    @property
    def dagster(self) -> Path:
        """Dagster's instance: settings, run history, logs.

        There is another, whose history is in PostgreSQL, for as long as RETRAIN_DATABASE is set.
        """
        return self.root / (_POSTGRES if switched_on() else _EMBEDDED)

    def prepare(self) -> None:
        """Create Dagster's folder with our settings, and point DAGSTER_HOME at it.

        Settings that are there already are left as they are, and a DAGSTER_HOME that is none of
        ours is respected: whoever runs a larger installation keeps their own instance.
        RETRAIN_HOME is set so that processes started from here agree on the data folder, and they
        are told to wait longer for a busy machine and to report home to nobody.
        """
        from retrain_assets.pools import most_runs  # pandas comes with it; see `completing`

        for name in SETTINGS:
            settings = self.dagster / name
            if not settings.exists():
                template = files("retrain_assets").joinpath(name).read_text("utf-8")
                template = template.replace("{most_runs}", str(most_runs()))
                kept_elsewhere = name == INSTANCE_SETTINGS and switched_on()
                write_text(settings, template + (_POSTGRES_STORAGE if kept_elsewhere else ""))
        ours = {str(self.root / folder) for folder in (_EMBEDDED, _POSTGRES)}
        if os.environ.get("DAGSTER_HOME", "") in {"", *ours}:
            os.environ["DAGSTER_HOME"] = str(self.dagster)
        os.environ[ENVIRONMENT] = str(self.root)
        for name, value in _PROCESSES.items():
            os.environ.setdefault(name, value)
