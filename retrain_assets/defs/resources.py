"""Typed resources: bars, models, results, production; the others have modules of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import pandas as pd
from pydantic import Field

from retrain_assets.database import switched_on, tracking_uri
from retrain_assets.defs.device import THREADS, Device
from retrain_assets.defs.io import BarsView, JsonRecords, PartitionBars
from retrain_assets.defs.reuse import Reuse
from retrain_assets.defs.tracking import Tracking
from retrain_assets.errors import BadInput
from retrain_assets.files import checked_symbol, read_json, write_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import Forecaster, ModelFamily, base_for
from retrain_assets.universe import Stock, Universe

if TYPE_CHECKING:
    from retrain_assets.evaluation.production import ProductionStore
    from retrain_assets.evaluation.refinement import Refinement
    from retrain_assets.evaluation.stock_record import StockRecord
    from retrain_assets.evaluation.versions import Version
    from retrain_assets.training.adapter_store import AdapterRecord, ModelStore


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

    def view(self, month: str, symbol: str) -> PartitionBars:
        """The bars that a month and stock may see; raises BadInput where there are none."""
        from retrain_assets.market.calendar import month_cut

        calendar, stored = self.stock(symbol).calendar, self.store().read(symbol)
        # Of later bars only their dates matter: they tell whether the month is over.
        cut = month_cut(month, pd.DatetimeIndex(stored["session"]), calendar, symbol=symbol)
        return PartitionBars.at(cut, stored, symbol, calendar)

    def last_final_month(self, symbol: str) -> str:
        """The latest month whose last session is stored."""
        from retrain_assets.market.calendar import last_final_month

        sessions = pd.DatetimeIndex(self.store().read(symbol)["session"])
        return last_final_month(sessions, self.stock(symbol).calendar, symbol=symbol)

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
        from retrain_assets.training.adapter_store import ModelStore

        return ModelStore(Path(self.root))

    def searches(self, record: AdapterRecord) -> Path:
        """Folder of the parameter searches of an adapter's family, month and stock."""
        store = self.store()
        return store.partition_folder(record.family, record.month, record.symbol) / "params"

    @property
    def bases(self) -> Path:
        """Folder of the base models."""
        return Path(self.checkpoints)

    def forecaster(self, version: Version, name: str, device: str) -> Forecaster:
        """A version as a forecaster called `name`; raises CheckpointError if files are amiss."""
        from retrain_assets.evaluation.versions import version_forecaster

        return version_forecaster(
            version, name=name, store=self.store(), checkpoints=self.bases, device=device
        )

    def ladder(self, policy: AdapterRecord) -> Refinement | None:
        """How far the ladder that begins with an adapter was climbed, None if it was not."""
        from retrain_assets.evaluation.refinement import Refinement

        file = self._ladder_file(policy)
        if not file.exists():
            return None
        known = Refinement.from_json(read_json(file))
        return known if known.policy == policy.digest else None

    def write_ladder(self, policy: AdapterRecord, ladder: Refinement) -> None:
        """Keep a ladder, so that an interrupted run goes on with the next rung."""
        write_json(self._ladder_file(policy), ladder.to_json())

    def _ladder_file(self, policy: AdapterRecord) -> Path:
        from retrain_assets.training.adapter_store import LADDER_FILE

        store = self.store()
        return store.partition_folder(policy.family, policy.month, policy.symbol) / LADDER_FILE


class Reports(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Where reports for people and scripts are written."""

    root: str = Field(description="Folder of the reports.")
    home: str = Field(description="The data folder.")

    def place(self) -> Home:
        """The data folder."""
        return Home(Path(self.home))

    def comparisons(self, month: str) -> Path:
        """Folder of one month's comparison summaries."""
        return Path(self.root) / "comparison_results" / month

    def comparison(self, month: str, symbol: str) -> Path:
        """File of one stock's comparison."""
        return self.comparisons(month) / f"{checked_symbol(symbol)}_comparison.json"

    def comparison_record(self, month: str, symbol: str) -> StockRecord | None:
        """One stock's comparison of a month, None if there is none."""
        file = self.comparison(month, symbol)
        return cast("StockRecord", read_json(file)) if file.exists() else None

    def earlier_comparisons(self, month: str) -> list[StockRecord]:
        """Comparisons of all stocks in the months before, ascending."""
        folder = Path(self.root) / "comparison_results"
        files = sorted(folder.glob("*/*_comparison.json"))
        return [cast("StockRecord", read_json(f)) for f in files if f.parent.name < month]

    def validations(self, month: str) -> Path:
        """Folder of one month's chosen parameters."""
        return Path(self.root) / "validation_results" / month

    def live(self, month: str, symbol: str) -> Path:
        """File of one stock's live record of a month."""
        return Path(self.root) / "live" / month / f"{checked_symbol(symbol)}.json"

    def live_records(self, symbol: str, *, before: str) -> list[dict[str, Any]]:
        """Live records of a stock in the months before one, ascending; months without are left
        out."""
        files = sorted((Path(self.root) / "live").glob(f"*/{checked_symbol(symbol)}.json"))
        records = [read_json(file) for file in files if file.parent.name < before]
        return [record for record in records if record["entries"]]

    def regressions(self, month: str) -> Path:
        """Folder of one month's regression report."""
        return Path(self.root) / "regression" / month

    def monthly(self, month: str) -> Path:
        """File of the report on one month, for people."""
        return Path(self.root) / "monthly" / f"{month}.html"


class Production(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """What is in production, and every decision that was taken."""

    root: str = Field(description="Folder of the champions, one a stock.")

    def store(self) -> ProductionStore:
        """The store of champions and decisions."""
        from retrain_assets.evaluation.production import ProductionStore

        return ProductionStore(Path(self.root))


def build_resources(home: Home, *, device: str = "auto") -> dict[str, Any]:
    """All resources over one data folder.

    MLFLOW_TRACKING_URI names another MLflow store, RETRAIN_THREADS another number of threads, and
    RETRAIN_DATABASE a PostgreSQL database for MLflow's numbers.
    """
    bars = Bars(root=str(home.market), universe=str(home.universe))
    own = tracking_uri() if switched_on() else f"sqlite:///{home.tracking / 'mlflow.db'}"
    return {
        "io_manager": JsonRecords(home.assets),
        "bars_view": BarsView(home.assets, bars.store()),
        "bars": bars,
        "models": Models(root=str(home.models), checkpoints=str(home.checkpoints)),
        "device": Device(device=device, threads=_threads(), locks=str(home.root / "locks")),
        "tracking": Tracking(
            uri=os.environ.get("MLFLOW_TRACKING_URI") or own,
            artifacts=str(home.tracking / "artifacts"),
            home=str(home.root),
        ),
        "reports": Reports(root=str(home.results), home=str(home.root)),
        "production": Production(root=str(home.production)),
        "reuse": Reuse(root=str(home.assets)),
    }


def _threads() -> int:
    given = os.environ.get("RETRAIN_THREADS") or str(THREADS)
    if not given.isdecimal() or int(given) < 1:
        raise BadInput(f"RETRAIN_THREADS is {given!r}: give a whole number of at least 1")
    return int(given)
