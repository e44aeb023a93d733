"""What an error comes from, and so what helps against it: to wait, a fresh process, or a person.

The one list of it; `progress.failing_plainly` acts on it, and `outages` builds on it for MLflow.
Classes of packages that may not be loaded are told by their names.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

from retrain_assets.errors import Transient

_PASSING = frozenset(
    {
        *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETXTBSY, errno.ENOLCK, errno.EDEADLK),
        *(errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE),
        *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
"""Numbers of system errors that may be over in a moment, of disks, network drives, networks."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_PASSING_CLASSES = frozenset(
    {
        "filelock.Timeout",
        "requests.ConnectionError",
        "requests.Timeout",
        "requests.RetryError",
        "requests.ChunkedEncodingError",
        "urllib3.ProtocolError",
        "urllib3.TimeoutError",
        "httpx.TransportError",
    }
)
"""By package and class: a lock that was not to be had, a network or a server that was away."""
# Whoever has switched the hub off waits for nothing.
_SWITCHED_OFF = frozenset({"huggingface_hub.OfflineModeIsEnabled"})
_BUSY = 429  # of HTTP: asked too often
_SERVER_ERRORS = range(500, 600)
_DATABASES = frozenset({"sqlite3.OperationalError", "psycopg2.OperationalError"})
_SQLITE_PASSING = ("is locked", "is busy", "disk i/o error", "unable to open database file")
# A database server that answers, and says no.
_SERVER_REFUSES = ("authentication failed", "does not exist", "permission denied", "no pg_hba")
_MEMORY_CLASSES = frozenset({"torch.OutOfMemoryError", "builtins.MemoryError"})
_DEVICE_CLASSES = frozenset({"torch.AcceleratorError"})
# What older torch raises as a plain RuntimeError, and the libraries below it.
_DEVICE_WORDS = ("CUDA error", "device-side assert", "CUBLAS_STATUS", "CUDNN_STATUS", "cuFFT error")


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from or while handling, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def disk_full(error: BaseException) -> bool:
    """Whether a disk or a quota is full: no retry makes room."""
    return any(
        (isinstance(one, OSError) and one.errno in _FULL)
        or (isinstance(one, sqlite3.OperationalError) and "disk is full" in str(one))
        for one in chain(error)
    )


def transient(error: BaseException) -> bool:
    """Whether it may be well in a moment: a network, a server, a lock or a database was away."""
    told = list(chain(error))
    if disk_full(error) or any(_of(one, _SWITCHED_OFF) for one in told):
        return False
    return any(_passing(one) for one in told)


def process_broken(error: BaseException) -> bool:
    """Whether only a fresh process helps: a device that failed keeps failing in this one, and what
    fills the memory is freed with the process."""
    return any(
        _of(one, _DEVICE_CLASSES | _MEMORY_CLASSES)
        or (type(one) is RuntimeError and any(words in str(one) for words in _DEVICE_WORDS))
        for one in chain(error)
    )


def _passing(error: BaseException) -> bool:
    if isinstance(error, Transient | ConnectionError | TimeoutError):
        return True
    if _of(error, _DATABASES):
        return _database_away(error)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and (status == _BUSY or status in _SERVER_ERRORS):
        return True
    return _of(error, _PASSING_CLASSES)


def _database_away(error: BaseException) -> bool:
    told = str(error).lower()
    if isinstance(error, sqlite3.OperationalError):
        return any(words in told for words in _SQLITE_PASSING)
    return not any(words in told for words in _SERVER_REFUSES)


def _of(error: BaseException, names: frozenset[str]) -> bool:
    """Whether an error is of a class, or of one below it, that is named `package.Class`."""
    own = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}
    return bool(own & names)
