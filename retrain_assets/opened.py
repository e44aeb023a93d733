"""The data folder as a command finds it: paths, universe, Dagster's instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrain_assets.home import Home

if TYPE_CHECKING:
    import dagster as dg

    from retrain_assets.universe import Universe


def opened() -> tuple[Home, Universe]:
    """The data folder, with Dagster's settings in place, and its universe.

    Raises BadInput when there is no data folder or its universe file cannot be used.
    """
    from retrain_assets.universe import Universe

    home = Home.find()
    universe = Universe.load(home.universe)
    home.prepare()
    return home, universe


def dagster_instance(home: Home) -> dg.DagsterInstance:
    """Dagster's instance, in which every stored symbol is a partition."""
    import dagster as dg

    from retrain_assets.defs.partitions import register_stocks
    from retrain_assets.market.bars import BarStore

    instance = dg.DagsterInstance.get()
    register_stocks(instance, BarStore(home.market).symbols())
    return instance
