"""Database engines of Dagster's SQLite storage, kept instead of made anew for each statement.

Dagster asks SQLAlchemy for a new engine whenever it opens one of its SQLite files, some thousand
times a run, so that every statement is compiled anew as well. Connections are still opened and
closed each time, by the pool that Dagster asks for, so nothing is held open, also across a fork.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dagster._core.storage import sql

# Private names: one of the reasons why dagster is pinned below 1.14, and why a test counts engines.
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

if TYPE_CHECKING:
    from sqlalchemy import Engine

_MOST = 64
"""Files whose engines are kept: every run has one, the newest are asked for."""


def keep_engines() -> None:
    """Let this process keep the engines of Dagster's SQLite storages."""
    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        module.create_engine = _kept  # type: ignore[attr-defined]


def _kept(address: str, *, poolclass: Any, connect_args: dict[str, Any] | None = None) -> Engine:
    return _engine(address, poolclass, tuple(sorted((connect_args or {}).items())))


@lru_cache(maxsize=_MOST)
def _engine(address: str, poolclass: Any, connect_args: tuple[tuple[str, Any], ...]) -> Engine:
    return sql.create_engine(address, poolclass=poolclass, connect_args=dict(connect_args))
