"""Dagster's history in PostgreSQL: what `dagster.yaml` names when RETRAIN_DATABASE is set.

Dagster's own storage, in the schema `dagster`. It reads the environment itself, so that no file
holds an address or a password, and creates its tables under a lock, because several processes
begin at once.
"""

from __future__ import annotations

from typing import Any

from retrain_assets.database import DAGSTER, MISSING, Database
from retrain_assets.errors import BadInput

try:
    from dagster_postgres import DagsterPostgresStorage
except ImportError as error:
    raise BadInput(MISSING) from error


class SchemaStorage(DagsterPostgresStorage):
    """Runs, events and schedules in one schema of the database that RETRAIN_DATABASE names."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing is configured in the file."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> SchemaStorage:
        """Open it, with its tables created if need be.

        Raises BadInput if the variable is not set or malformed, RetrainError if the server does
        not answer within seconds.
        """
        database = Database.from_environment()
        with database.creating(DAGSTER):
            return cls(postgres_url=database.url(DAGSTER), inst_data=inst_data)
