"""Typed resources: bar store, model store, device, reports; `tracking` has MLflow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.io import BarsView, JsonRecords
from retrain_assets.defs.tracking import Tracking
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import ModelFamily, base_for
from retrain_assets.universe import Stock, Universe

if TYPE_CHECKING:
    from filelock import FileLock

    from retrain_assets.training.adapters import AdapterRecord, ModelStore

THREADS = 1
"""CPU threads by default: a second stock at the same time gains more than a second thread."""


class Bars(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """The stored histories, and what the universe says of each symbol."""

    root: str = Field(description="Folder with one Parquet file a symbol.")
    universe: str = Field(description="The file that lists the symbols.")

    def store(self) -> BarStore:
        """The bar store."""
        return BarStore(Path(self.root))

    def stock(self, symbol: str) -> Stock:
        """Calendar and overrides of a symbol, read anew so that an edit takes effect at once."""
        return Universe.load(Path(self.universe)).stock(symbol, stored=[symbol])

    def base(self, own: ModelFamily, asked: str | None, device: str) -> str:
        """The base of a family to retrain: as asked, else the universe's, else the bundled one."""
        listed = Universe.load(Path(self.universe)).bases.get(own.name)
        return base_for(own, asked or listed, device=device)


class Models(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Base models to start from, and the store of adapters."""

    root: str = Field(description="Folder of the adapters.")
    checkpoints: str = Field(description="Folder of the base models.")

    def store(self) -> ModelStore:
        """The store of adapters."""
        from retrain_assets.training.adapters import ModelStore

        return ModelStore(Path(self.root))

    def searches(self, record: AdapterRecord) -> Path:
        """Folder of the parameter searches of an adapter's family, month and stock."""
        store = self.store()
        return store.partition_folder(record.family, record.month, record.symbol) / "params"

    @property
    def bases(self) -> Path:
        """Folder of the base models."""
        return Path(self.checkpoints)


class Device(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Where models run: one holder at a time for each card, on the CPU one for each core or so."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int = Field(
        THREADS, ge=1, description="CPU threads; fixed, because results on the CPU depend on it."
    )
    locks: str = Field(description="Folder of the lock files, one a device.")

    @contextlib.contextmanager
    def lease(self) -> Iterator[str]:
        """Hold a device and yield its name; waits while all that are allowed are held.

        `auto` takes any CUDA device that is free, else the CPU. Apple's is taken on request alone:
        it has no float64, which the draws of Kronos need.
        """
        import torch
        from filelock import FileLock

        torch.set_num_threads(self.threads)
        places = [place for name in self._allowed() for place in self._places(name)]
        Path(self.locks).mkdir(parents=True, exist_ok=True)
        place, lock = _first_free(
            {place: FileLock(Path(self.locks) / place.replace(":", "-")) for place in places}
        )
        try:
            yield "cpu" if place.startswith("cpu") else place
        finally:
            lock.release()

    def _places(self, name: str) -> list[str]:
        """What may be held of a device: a card whole, the CPU as often as its threads fit."""
        if name != "cpu":
            return [name]
        return [f"cpu-{i}" for i in range(max(1, (os.cpu_count() or 1) // self.threads))]

    def _allowed(self) -> list[str]:
        import torch

        cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        mps = ["mps"] if torch.backends.mps.is_available() else []
        if self.device == "auto":
            return cuda or ["cpu"]
        wanted = cuda if self.device == "cuda" else [self.device]
        if not wanted or not set(wanted) <= {*cuda, *mps, "cpu"}:
            raise BadInput(
                f"there is no device {self.device!r} here: choose auto, "
                f"{', '.join([*cuda, *mps, 'cpu'])}"
            )
        return wanted


def _first_free(locks: dict[str, FileLock]) -> tuple[str, FileLock]:
    """Acquire the first lock that can be had, waiting for as long as it takes."""
    from filelock import Timeout

    while True:
        for name, lock in locks.items():
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=1.0 / len(locks))
                return name, lock


class Reports(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Where reports for people and scripts are written."""

    root: str = Field(description="Folder of the reports.")

    def comparisons(self, month: str) -> Path:
        """Folder of one month's comparison summaries."""
        return Path(self.root) / "comparison_results" / month

    def validations(self, month: str) -> Path:
        """Folder of one month's chosen parameters."""
        return Path(self.root) / "validation_results" / month


def build_resources(home: Home, *, device: str = "auto") -> dict[str, Any]:
    """All resources over one data folder.

    MLFLOW_TRACKING_URI names another MLflow store, RETRAIN_THREADS another number of threads.
    """
    bars = Bars(root=str(home.market), universe=str(home.universe))
    database = f"sqlite:///{home.tracking / 'mlflow.db'}"
    return {
        "io_manager": JsonRecords(home.assets),
        "bars_view": BarsView(home.assets, bars.store()),
        "bars": bars,
        "models": Models(root=str(home.models), checkpoints=str(home.checkpoints)),
        "device": Device(device=device, threads=_threads(), locks=str(home.root / "locks")),
        "tracking": Tracking(
            uri=os.environ.get("MLFLOW_TRACKING_URI") or database,
            artifacts=str(home.tracking / "artifacts"),
        ),
        "reports": Reports(root=str(home.results)),
    }


def _threads() -> int:
    given = os.environ.get("RETRAIN_THREADS") or str(THREADS)
    if not given.isdecimal() or int(given) < 1:
        raise BadInput(f"RETRAIN_THREADS is {given!r}: give a whole number of at least 1")
    return int(given)
