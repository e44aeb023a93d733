"""Runs that start warm: they are forked from a process that has imported what every run needs.

Dagster's code server starts a new interpreter for each run, and most of the time of a run that
has little to compute goes into imports. Python's forkserver does them once beside the code server;
a run is then a fork of it, which shares its memory as well. That process opens no database, and no
card: torch is among its imports only where there are no cards, because a run has to choose its
card before. RETRAIN_COLD_RUNS=1 leaves it to Dagster.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from multiprocessing.context import BaseContext

COLD_VARIABLE = "RETRAIN_COLD_RUNS"
WARM = "Runs start warm from now on"
"""What the code server says then."""
LOCATIONS = ["retrain_assets.definitions"]
"""Modules of definitions that are imported for all runs; to be changed before they are."""
_SERVER = "dagster._grpc.server"
_OURS = (
    "retrain_assets.defs.registry",
    "retrain_assets.evaluation.champions",
    "retrain_assets.evaluation.comparison",
    "retrain_assets.evaluation.contenders",
    "retrain_assets.evaluation.live_record",
    "retrain_assets.evaluation.params",
    "retrain_assets.evaluation.stock_record",
    "retrain_assets.evaluation.stock_report",
    "retrain_assets.market.schema",
    "retrain_assets.training.adapters",
)
_OTHERS = (
    "alembic",
    "exchange_calendars",
    "matplotlib.figure",
    "mlflow",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "rich._emoji_codes",
)
_LAST = "retrain_assets.rehearsal"
_MODELS = ("torch", "peft", "statsforecast.models")


def imports() -> list[str]:
    """The modules to import once for all runs."""
    from retrain_assets import cards

    models = () if cards.usable() else _MODELS
    return [*LOCATIONS, *_OURS, *_OTHERS, *models, _LAST]


def start_runs_warm() -> None:
    """Let the code server fork its runs, if this process is one, as soon as the imports are done.

    It asks for its way to start processes anew for each run, by a private name: the reason why
    dagster is pinned below 1.14, and why a test looks at a run that was started like this.
    """
    server = sys.modules.get(_SERVER)
    if server is None or sys.platform != "linux" or os.environ.get(COLD_VARIABLE):
        return
    as_dagster, warm = multiprocessing.get_context("spawn"), threading.Event()
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(imports())
    threading.Thread(target=_warm_up, args=(forking, warm), daemon=True).start()

    def chosen(_: object) -> BaseContext:
        return forking if warm.is_set() else as_dagster

    # Over an attribute of the object that is set already, a property of its class has its way.
    server.DagsterApiServer._mp_ctx = property(chosen, lambda *_: None)


def _warm_up(forking: BaseContext, warm: threading.Event) -> None:
    """Start the process, and wait until it has forked once: a run would be given up meanwhile."""
    process = forking.Process(target=_nothing)  # type: ignore[attr-defined]  # every context's
    process.start()
    process.join()
    if process.exitcode == 0:
        warm.set()
        print(WARM, file=sys.stderr, flush=True)


def _nothing() -> None:
    """What the first fork does."""
