"""The data folder: where bars, checkpoints, models, results and both databases lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from retrain_assets.errors import BadInput
from retrain_assets.files import write_text

ENVIRONMENT = "RETRAIN_HOME"
SETTINGS = ("dagster.yaml", "workspace.yaml")
DAGSTER_PAGE = "http://127.0.0.1:3000"
MLFLOW_PAGE = "http://127.0.0.1:5000"


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
        """Dagster's instance: settings, run history, logs."""
        return self.root / "dagster"

    def prepare(self) -> None:
        """Create Dagster's folder with our settings, and point DAGSTER_HOME at it.

        Settings that are there already are left as they are, and a DAGSTER_HOME that is already
        set is respected: whoever runs a larger installation keeps their own instance.
        RETRAIN_HOME is set so that processes started from here agree on the data folder.
        """
        for name in SETTINGS:
            settings = self.dagster / name
            if not settings.exists():
                template = files("retrain_assets").joinpath(name).read_text("utf-8")
                write_text(settings, template)
        os.environ.setdefault("DAGSTER_HOME", str(self.dagster))
        os.environ[ENVIRONMENT] = str(self.root)
