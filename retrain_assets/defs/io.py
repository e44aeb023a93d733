"""What assets return, on disk: one small JSON file a partition, and a view of the bars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
import pandas as pd
from upath import UPath

from retrain_assets.defs.retries import act_on
from retrain_assets.files import read_json, write_json
from retrain_assets.market.bars import BarStore, content_hash

if TYPE_CHECKING:
    from retrain_assets.market.calendar import MonthCut


OPTIONAL = {"allow_missing_partitions": True}
"""Metadata of an input that may be missing: it arrives as None."""
GATHERED = OPTIONAL | {"by_partition": True}
"""Metadata of an input of many partitions, of which some may be missing; see `JsonRecords`."""


class JsonRecords(dg.UPathIOManager):
    """Keeps a dict as `<root>/<asset>/<month>/<stock>.json`, written whole or not at all.

    An input whose metadata has `by_partition: True` always arrives as {partition: dict}, also
    when there is just one, or none.
    """

    extension: str | None = ".json"

    def __init__(self, root: Path) -> None:
        super().__init__(base_path=UPath(root))

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:
        """Write one record."""
        write_json(Path(str(path)), obj)

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Any:
        """Read one record; FileNotFoundError says which asset to materialize first."""
        file = Path(str(path))
        if not file.exists():
            asset = context.asset_key.to_user_string()
            raise FileNotFoundError(f"{file} does not exist: materialize {asset} first")
        return _plainly(partial(read_json, file))

    def load_input(self, context: dg.InputContext) -> Any:
        """One record, or the records of several partitions by their keys."""
        loaded = super().load_input(context)
        if not (context.definition_metadata or {}).get("by_partition"):
            return loaded
        if loaded is None:
            return {}
        keys = context.asset_partition_keys
        return {keys[0]: loaded} if len(keys) == 1 else loaded


@dataclass(frozen=True)
class PartitionBars:
    """The bars one partition may see: everything up to and including its cut, nothing after.

    hash: SHA-256 of those bars; what comes later never changes it.
    provisional: the month's last session is not stored yet.
    """

    symbol: str
    month: str
    calendar: str
    cut: pd.Timestamp
    provisional: bool
    hash: str
    bars: pd.DataFrame

    @classmethod
    def at(cls, cut: MonthCut, stored: pd.DataFrame, symbol: str, calendar: str) -> PartitionBars:
        """What of a stored history may be seen at the end of a month."""
        bars = stored[stored["session"] <= cut.cut].reset_index(drop=True)
        return cls(symbol, cut.month, calendar, cut.cut, cut.provisional, content_hash(bars), bars)


class BarsView(JsonRecords):
    """Keeps which bars a partition sees, not the bars: those stay in the bar store.

    Loading fails when the store's bars up to the cut are no longer the ones that were seen.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ("symbol", "month", "calendar", "provisional", "hash")

    def __init__(self, root: Path, store: BarStore) -> None:
        super().__init__(root)
        self._store = store

    def dump_to_path(self, context: dg.OutputContext, obj: PartitionBars, path: UPath) -> None:
        """Write symbol, cut and hash."""
        view = {name: getattr(obj, name) for name in self.FIELDS}
        write_json(Path(str(path)), view | {"cut": f"{obj.cut:%Y-%m-%d}"})

    def load_from_path(self, context: dg.InputContext, path: UPath) -> PartitionBars:
        """Read the bars the record stands for, and check that they are the same."""
        view = super().load_from_path(context, path)
        cut = pd.Timestamp(view["cut"])
        bars = _plainly(partial(self._store.read, view["symbol"], until=cut))
        if content_hash(bars) != view["hash"]:
            raise dg.Failure(
                f"the stored bars of {view['symbol']} up to {view['cut']} have changed since "
                f"market_bars saw them: materialize market_bars of {view['month']} again",
                allow_retries=False,
            )
        return PartitionBars(**{name: view[name] for name in self.FIELDS}, cut=cut, bars=bars)


def _plainly(read: Any) -> Any:
    try:
        return read()
    except Exception as error:
        act_on(error)
