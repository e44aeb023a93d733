"""MLflow's model registry: a registered model per family and stock, aliases for who is what.

What is in production stands in our own store, which the aliases follow. While MLflow is away they
lag behind: that is noted in the outbox, and the next time it answers they are brought in line with
what is in production then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.outages import StoreAway, answering
from retrain_assets.defs.outbox import Kept
from retrain_assets.errors import RetrainError
from retrain_assets.home import Home
from retrain_assets.models.forecaster import families
from retrain_assets.universe import Stock, Universe

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from retrain_assets.defs.tracking import TrackedRun, Tracking

CHALLENGER = "challenger"
LAGS = "the model registry lags behind: MLflow was away. It follows when MLflow is used again"
IN_LINE = "in line"
NOT_TOUCHED = "as it was: nothing goes live here"


def register(record: Mapping[str, Any], stock: Stock, *, home: Home, run: TrackedRun) -> str:
    """Bring a stock's aliases in line with a champion record that goes live; says how it went.

    Call it under the stock's lock, since two runs may decide at once. Where MLflow is away the
    decision stands all the same; raises RetrainError where it refuses.
    """
    try:
        if run.away or run.client is None:
            raise StoreAway(f"{stock.symbol} was decided on while MLflow was away")
        with answering(run.uri):
            _align(run.client, record, stock, home=home, run_id=run.id)
    except StoreAway as error:
        run.went_away(error)
        run.outbox.note_lag(stock.symbol, run.kept)
        dg.get_dagster_logger().warning(f"{stock.symbol}: {LAGS}")
        return LAGS
    run.outbox.clear_lag(stock.symbol)
    return IN_LINE


def catch_up(
    tracking: Tracking, client: MlflowClient, home: Home, lagging: Mapping[str, Kept]
) -> None:
    """Bring the aliases of stocks in line with what is in production now.

    lagging: by symbol the run that decided. What fails is warned of and tried again next time: it
    is no error of whoever happens to be there.
    """
    log = dg.get_dagster_logger()
    for symbol, decider in lagging.items():
        try:
            _catch_up(tracking, client, home, symbol, decider)
        except StoreAway as error:
            log.warning(f"MLflow is away again, its registry lags on: {error}")
            return
        except (RetrainError, OSError) as error:
            log.warning(f"the model registry lags on for {symbol}: {error}")
        else:
            log.info(f"the model registry is in line again for {symbol}")


def _catch_up(
    tracking: Tracking, client: MlflowClient, home: Home, symbol: str, decider: Kept
) -> None:
    from retrain_assets.evaluation.production import ProductionStore

    production = ProductionStore(home.production)
    stock = Universe.load(home.universe).stock(symbol, stored=[symbol])
    with production.lock(symbol):
        record = production.live(symbol)
        if record is not None:
            with answering(tracking.uri):
                run_id = tracking.run_of(client, decider)
                _align(client, record, stock, home=home, run_id=run_id)
        tracking.outbox.clear_lag(symbol)


def _align(
    client: MlflowClient, record: Mapping[str, Any], stock: Stock, *, home: Home, run_id: str
) -> None:
    """`champion` is on each family's champion, `challenger` on the month's candidate while it is
    another. A version that is registered already is not stored again."""
    from retrain_assets import serving
    from retrain_assets.evaluation.versions import Version

    for family in set(families()) - set(record["families"]):
        _withdraw(client, serving.registered_name(family, stock.symbol), serving.CHAMPION)
    for state in record["families"].values():
        champion = Version.from_json(state["champion"])
        serving.promote(client, champion, stock, home=home, run_id=run_id)
        candidate = Version.from_json(state["candidate"]) if state["candidate"] else None
        name = serving.registered_name(champion.family, stock.symbol)
        if candidate is None or candidate.id == champion.id:
            _withdraw(client, name, CHALLENGER)
        else:
            serving.promote(client, candidate, stock, home=home, run_id=run_id, alias=CHALLENGER)


def _withdraw(client: MlflowClient, name: str, alias: str) -> None:
    """Take an alias away, if the model is registered and has it."""
    if client.search_registered_models(f"name = '{name}'"):
        client.delete_registered_model_alias(name, alias)
