"""A code location whose one job tells how its process was started; see test_orchestration."""

import sys

import dagster as dg
import psutil

from retrain_assets.warm import start_runs_warm


@dg.op
def _look(context: dg.OpExecutionContext) -> None:
    parent = psutil.Process().parent()
    tags = {
        "parent": "forkserver"
        if parent and "forkserver" in " ".join(parent.cmdline())
        else "another",
        "imported": str({"mlflow", "arch", "retrain_assets.definitions"} <= set(sys.modules)),
    }
    context.instance.add_run_tags(context.run_id, tags)


@dg.job(executor_def=dg.in_process_executor)
def look() -> None:
    """Says in its run's tags what it sees."""
    _look()


defs = dg.Definitions(jobs=[look])
start_runs_warm()
