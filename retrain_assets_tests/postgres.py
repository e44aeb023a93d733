"""A PostgreSQL server of one's own for tests, from Debian's package, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain_assets_tests.ports import free_port

PASSWORD = "s3cret/päss@word"  # with what an address must escape
ESCAPED = "s3cret%2Fp%C3%A4ss%40word"
_SERVERS = Path("/usr/lib/postgresql")
_QUICK = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off"


def programs() -> Path | None:
    """Folder of the newest server's programs, None where none is installed."""
    found = sorted(_SERVERS.glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A server with an empty database; yields its address, password and all.

    Skips the test where no server is installed, unless CI_POSTGRES asks for one.
    """
    folder = programs()
    if folder is None:
        reason = f"no PostgreSQL server in {_SERVERS}: apt-get install postgresql"
        if os.environ.get("CI_POSTGRES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    # Not below pytest's own folder, which none but its user may enter.
    place = Path(tempfile.mkdtemp(prefix="retrain-postgres-"))
    data, port = place / "data", free_port()
    (place / "password").write_text(PASSWORD, encoding="utf-8")
    as_user = []
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        shutil.chown(place, "postgres")
        shutil.chown(place / "password", "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(program: str, *arguments: str) -> None:
        command = [*as_user, str(folder / program), "-D", str(data), *arguments]
        log = place / f"{program}.log"
        with log.open("w") as output:  # a pipe would stay open for as long as the server runs
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        assert done.returncode == 0, log.read_text()

    try:
        password = f"--pwfile={place / 'password'}"
        call("initdb", "-N", "-U", "retrain", "-E", "UTF8", "-A", "scram-sha-256", password)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {place} {_QUICK}"
        call("pg_ctl", "-w", "-l", str(place / "server.log"), "-o", options, "start")
        try:
            yield f"postgresql://retrain:{ESCAPED}@127.0.0.1:{port}/postgres"
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place)
