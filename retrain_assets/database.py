"""The switch to PostgreSQL: a database that Dagster and MLflow share, instead of SQLite files.

    export RETRAIN_DATABASE=postgresql://user:password@host:5432/retraining

Both have a table `runs`, so each gets a schema of its own there, `dagster` and `mlflow`, created on
first use. The password is handed to PostgreSQL's library through its own variable PGPASSWORD, so
that it is in no address that is shown, logged or given to another program.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrain_assets.errors import BadInput, RetrainError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

ENVIRONMENT = "RETRAIN_DATABASE"
DAGSTER = "dagster"
MLFLOW = "mlflow"
"""Names of the schemas."""
MISSING = (
    f"{ENVIRONMENT} is set, and the packages for PostgreSQL are not installed: "
    "`pip install 'retrain-assets[postgres]'`, or unset it to use the files beside the data"
)

_PASSWORD = "PGPASSWORD"  # the name of a variable
_FORM = f"{ENVIRONMENT} must read postgresql://user:password@host:port/dbname"
# SQLAlchemy 2.1 takes psycopg 3 where no driver is named; Dagster's storage is made for psycopg 2.
_DRIVER = "postgresql+psycopg2"
_DRIVERS = {"postgresql", "postgres", _DRIVER}
_CONNECT_SECONDS = "5"
# Creating MLflow's tables takes seconds, minutes on a busy machine.
_LOCK_SECONDS = 300
# An advisory lock of PostgreSQL is named by two numbers: the first is ours, the second a schema's.
_LOCK = 0x7265_7472  # "retr"
_SCHEMAS = (DAGSTER, MLFLOW)


def switched_on() -> bool:
    """Whether the environment names a database."""
    return bool(os.environ.get(ENVIRONMENT))


@dataclass(frozen=True)
class Database:
    """A PostgreSQL database.

    address: without driver and password. password: None if PostgreSQL's own means supply it
    (~/.pgpass, PGPASSWORD) or none is needed.
    """

    address: URL
    password: str | None = field(repr=False)

    @classmethod
    def from_environment(cls) -> Database:
        """What RETRAIN_DATABASE names.

        Raises BadInput if it is not set or malformed, or if the packages are not installed. The
        message never repeats the value, which may hold a password.
        """
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        value = os.environ.get(ENVIRONMENT)
        if not value:
            raise BadInput(f"{ENVIRONMENT} is not set: {_FORM}; export it in this shell")
        require_packages()
        try:
            found = make_url(value)
        except (ArgumentError, ValueError):
            # Not chained, because the cause repeats the value.
            raise BadInput(f"{_FORM}; as it stands it is no address") from None
        if found.drivername not in _DRIVERS:
            raise BadInput(f"{_FORM}; it begins with {found.drivername!r}")
        if not found.database:
            raise BadInput(f"{_FORM}; it names no database")
        # `set` takes None for "as it was".
        bare = found._replace(drivername="postgresql", password=None)
        return cls(bare, None if found.password is None else str(found.password))

    @property
    def shown(self) -> str:
        """The address for people: without the password, and without options."""
        return self.address.set(query={}).render_as_string()

    def url(self, schema: str) -> str:
        """The address of one of the schemas for SQLAlchemy, without the password.

        The password is put into PGPASSWORD, for this process and those it starts.
        """
        if self.password is not None:
            os.environ[_PASSWORD] = self.password
        query = dict(self.address.query)
        options = f"{query.get('options', '')} -csearch_path={schema}".strip()
        query = {"connect_timeout": _CONNECT_SECONDS, **query, "options": options}
        found = self.address.set(drivername=_DRIVER, query=query)
        return found.render_as_string()

    @contextlib.contextmanager
    def creating(self, schema: str) -> Iterator[Connection]:
        """Hold the right to create tables in a schema, which is there then; others wait.

        Raises RetrainError if the server does not answer within seconds, or refuses.
        """
        from sqlalchemy import text

        numbers = {"ours": _LOCK, "schema": _SCHEMAS.index(schema)}
        with self._connected(schema) as connection:
            # The lock is the session's, so it ends with it, even if this process is killed.
            connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:ours, :schema)"), numbers)
            known = connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": schema})
            if known is None:
                connection.execute(text(f"CREATE SCHEMA {schema}"))
            yield connection

    def has_table(self, schema: str, table: str) -> bool:
        """Whether a schema has a table; raises as `creating`."""
        from sqlalchemy import text

        name = {"name": f"{schema}.{table}"}
        with self._connected(schema) as connection:
            return connection.scalar(text("SELECT to_regclass(:name)"), name) is not None

    @contextlib.contextmanager
    def _connected(self, schema: str) -> Iterator[Connection]:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.pool import NullPool

        engine = create_engine(
            self.url(schema), poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
        )
        try:
            with engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise RetrainError(
                f"PostgreSQL at {self.shown} did not answer or refused: "
                f"{' '.join(str(error.orig).split())}. Start that server and see that its user may "
                f"create schemas (or create {' and '.join(_SCHEMAS)} for it); or unset "
                f"{ENVIRONMENT} to use the files beside the data"
            ) from error


def require_packages() -> None:
    """Raise BadInput, saying what to install, unless PostgreSQL's packages are there."""
    try:
        for name in ("dagster_postgres", "psycopg2"):
            importlib.import_module(name)
    except ImportError as error:
        raise BadInput(MISSING) from error


def tracking_uri() -> str:
    """MLflow's address in the database that the environment names; raises BadInput as there."""
    return Database.from_environment().url(MLFLOW)


def create_tracking(uri: str, artifacts: str) -> None:
    """Create MLflow's tables once, if `uri` is that of the database the environment names.

    artifacts: folder for artifacts of experiments that name none. Raises RetrainError if the
    server does not answer within seconds; MLflow itself would try for minutes.
    """
    if not switched_on() or uri != tracking_uri():
        return
    database = Database.from_environment()
    # MLflow's migrations are one transaction, which ends by creating this table.
    if database.has_table(MLFLOW, "alembic_version"):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with database.creating(MLFLOW):
        # Its constructor runs the migrations, where they have not been run.
        SqlAlchemyStore(uri, Path(artifacts).as_uri())
