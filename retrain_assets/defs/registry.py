"""MLflow's model registry: a registered model per family and stock, aliases for who is what."""

from __future__ import annotations

from typing import Any

from retrain_assets.defs.tracking import TrackedRun
from retrain_assets.home import Home
from retrain_assets.models.forecaster import families
from retrain_assets.universe import Stock

CHALLENGER = "challenger"


def register(record: dict[str, Any], stock: Stock, *, home: Home, run: TrackedRun) -> None:
    """Bring a stock's aliases in line with a champion record that is live.

    `champion` is on each family's champion, `challenger` on this month's candidate while it is
    another. A version that is registered already is not stored again. Call it under the stock's
    lock, since two runs may decide at once.
    """
    from retrain_assets import serving
    from retrain_assets.evaluation.versions import Version

    for family in set(families()) - set(record["families"]):
        _withdraw(run, serving.registered_name(family, stock.symbol), serving.CHAMPION)
    for state in record["families"].values():
        champion = Version.from_json(state["champion"])
        serving.promote(run.client, champion, stock, home=home, run_id=run.id)
        candidate = Version.from_json(state["candidate"]) if state["candidate"] else None
        name = serving.registered_name(champion.family, stock.symbol)
        if candidate is None or candidate.id == champion.id:
            _withdraw(run, name, CHALLENGER)
        else:
            serving.promote(
                run.client, candidate, stock, home=home, run_id=run.id, alias=CHALLENGER
            )


def _withdraw(run: TrackedRun, name: str, alias: str) -> None:
    """Take an alias away, if the model is registered and has it."""
    if run.client.search_registered_models(f"name = '{name}'"):
        run.client.delete_registered_model_alias(name, alias)
