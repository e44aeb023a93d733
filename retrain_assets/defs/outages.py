"""Which errors of MLflow mean that its store is away, and which that it refused.

What is away comes back: what it could not take waits in the outbox until then. What is refused
would be refused again, and is an error.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from retrain_assets.defs.causes import chain, transient
from retrain_assets.errors import RetrainError, Transient

# What MLflow says of an answer that is no JSON; 501 is none of a store that comes back.
_SERVER_ERROR = re.compile(r"failed with error code 5(?!01)\d\d")
# MLflow, and what it lets through of the packages below it.
_MLFLOWS = frozenset({"mlflow", "requests", "sqlalchemy", "alembic", "sqlite3", "psycopg2"})
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_KNOCK_SECONDS = 5.0


class StoreAway(Transient):
    """MLflow's store cannot be reached now."""


def shown(uri: str) -> str:
    """A tracking URI for people and files: without user and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@contextlib.contextmanager
def answering(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises inside into words.

    Raises StoreAway where the store is away, RetrainError where it refused; what is not MLflow's
    goes through, as a full disk does.
    """
    try:
        yield
    except StoreAway:
        raise
    except Exception as error:
        if _away(error):
            if isinstance(error, RetrainError):  # in words already
                raise StoreAway(str(error)) from error
            cause = list(chain(error))[-1]  # the outer ones repeat address and request
            raise StoreAway(f"MLflow at {shown(uri)} does not answer: {_plain(cause)}") from error
        if type(error).__module__.partition(".")[0] not in _MLFLOWS:
            raise
        raise refusal(uri, error) from error


def refusal(uri: str, error: Exception) -> RetrainError:
    """What MLflow refused, and what helps against it."""
    return RetrainError(
        f"MLflow at {shown(uri)} refused: {_plain(error)}. See to what it says, or unset "
        "MLFLOW_TRACKING_URI to use the database beside the data, and run again: training goes on "
        "from its last checkpoint"
    )


def knock(uri: str) -> None:
    """Raise StoreAway at once if nothing listens where a database is; MLflow tries for minutes."""
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in _DATABASE_PORTS or not parts.hostname:
        return
    address = (parts.hostname, parts.port or _DATABASE_PORTS[scheme])
    try:
        socket.create_connection(address, timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise StoreAway(f"MLflow's database at {shown(uri)} does not answer: {error}") from error


def _away(error: Exception) -> bool:
    """Whether a store may be back later: it was not reached, was busy, or has failed inside."""
    if transient(error):
        return True
    return any(_SERVER_ERROR.search(str(one)) for one in chain(error))


def _plain(error: BaseException) -> str:
    """An error in one line, without what SQLAlchemy adds: its statement and where to read on."""
    return " ".join(str(error).split("[SQL:")[0].split("(Background on")[0].split())
