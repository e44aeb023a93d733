"""How many runs compute at a time: the limit of the pool `gpu`, and of runs in all.

The pool takes one run a card; without cards one for each place on the CPU, which is a core or as
many as a run has threads. `operation.pools` of universe.yaml gives another number. A number that
somebody set on Dagster's page or with `dagster instance concurrency set` stays, unless
universe.yaml gives one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from retrain_assets.operation import GPU

if TYPE_CHECKING:
    import dagster as dg

    from retrain_assets.home import Home

_BESIDE = 2  # runs that do not compute, such as summaries
_OURS = f"retrain/pool/{GPU}"
"""Under this key the instance keeps the limit that was set here, to know it from another's."""


def fit_pools(instance: dg.DagsterInstance, home: Home) -> None:
    """Set the limit of the pool, where nobody else has.

    In an instance that is not the data folder's own, only to what universe.yaml says: it may
    have other machines.
    """
    from retrain_assets.universe import Universe

    given = Universe.load(home.universe).operation.pools.get(GPU)
    if given is None and os.environ.get("DAGSTER_HOME") != str(home.dagster):
        return
    storage, cursors = instance.event_log_storage, instance.daemon_cursor_storage
    limits = {pool.name: pool for pool in storage.get_pool_limits()}
    there = None if GPU not in limits or limits[GPU].from_default else limits[GPU].limit
    ours = cursors.get_cursor_values({_OURS}).get(_OURS)
    if given is None and there is not None and str(there) != ours:
        return
    wanted = given or _places(home)
    if wanted != there:
        storage.set_concurrency_slots(GPU, wanted)
    if str(wanted) != ours:
        cursors.set_cursor_values({_OURS: str(wanted)})


def most_runs() -> int:
    """How many runs there may be at a time on this machine, those that compute and others."""
    from retrain_assets import cards

    return (len(cards.usable()) or os.cpu_count() or 1) + _BESIDE


def _places(home: Home) -> int:
    from retrain_assets.defs.resources import build_resources

    return int(build_resources(home)["device"].places)
