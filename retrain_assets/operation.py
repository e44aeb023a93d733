"""How the system runs by itself: the section `operation` of universe.yaml, every part optional."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

OWNERS = ["team:forecasting"]
"""Of all assets."""
GPU = "gpu"
"""Pool of everything that computes on the device."""
POOLS = (GPU,)

_STRICT = ConfigDict(extra="forbid", frozen=True)


def _pool(name: str) -> str:
    if name not in POOLS:
        raise ValueError(f"there is no pool {name!r}: the pools are {', '.join(POOLS)}")
    return name


def _source(name: str) -> str:
    # Imported here because most universes name no feed.
    from retrain_assets.market.feeds import feeds

    if name not in feeds():
        raise ValueError(f"there is no feed {name!r}: the feeds are {', '.join(feeds())}")
    return name


class Schedule(BaseModel):
    """When months are retrained for good.

    every: `month`, or `quarter` for March, June, September and December alone.
    delay_hours: from the close of a month's last session to its request.
    """

    model_config = _STRICT

    every: Literal["month", "quarter"] = "month"
    delay_hours: Annotated[float, Field(ge=0, le=240)] = 6.0


class Inbox(BaseModel):
    """Files that are dropped into the inbox folder.

    quiet_seconds: a file is read when it has not changed for so long.
    largest_mb: larger files are refused unread.
    """

    model_config = _STRICT

    quiet_seconds: Annotated[float, Field(ge=0)] = 15.0
    largest_mb: Annotated[int, Field(ge=1)] = 256


class Feed(BaseModel):
    """Where bars are fetched from.

    source: a module of market/feeds; `yahoo` and `alpaca` need the package's extra of that name.
    delay_hours: from a session's close to its first fetch.
    overlap_sessions: stored sessions that are fetched again, so that corrections show.
    """

    model_config = _STRICT

    source: Annotated[str, AfterValidator(_source)]
    delay_hours: Annotated[float, Field(ge=0, le=48)] = 2.0
    overlap_sessions: Annotated[int, Field(ge=2, le=250)] = 10


class Retention(BaseModel):
    """What `retrain prune` leaves.

    run_days: of Dagster's run history. months: of adapters, searches and results that nothing in
    production needs.
    """

    model_config = _STRICT

    run_days: Annotated[int, Field(ge=1)] = 180
    months: Annotated[int, Field(ge=2)] = 24


class Operation(BaseModel):
    """All of it.

    feed: none by default, then nothing is fetched. pools: how many runs each pool takes at a
    time, where not one a card (on the CPU: one for each core).
    """

    model_config = _STRICT

    schedule: Schedule = Schedule()
    inbox: Inbox = Inbox()
    feed: Feed | None = None
    retention: Retention = Retention()
    pools: dict[Annotated[str, AfterValidator(_pool)], Annotated[int, Field(ge=1)]] = {}
