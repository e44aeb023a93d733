"""Servers of web pages that tests start and look at; what they show is kept as pictures."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SCREENSHOTS = Path(os.environ.get("RETRAIN_SCREENSHOTS", Path(__file__).parents[1] / ".newcomer"))
PATIENCE = 240.0


@contextlib.contextmanager
def served(
    command: Sequence[str],
    address: str,
    *,
    environment: Mapping[str, str] | None = None,
    root: Path | None = None,
) -> Iterator[None]:
    """A server, from when it answers at an address until the block ends; no process is left.

    environment, root: those of this process unless given.
    """
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until = time.monotonic() + PATIENCE
            while not answers(address):
                log.seek(0)
                assert server.poll() is None, log.read()[-3000:]
                assert time.monotonic() < until, f"{address} did not answer"
                time.sleep(0.5)
            yield
        finally:
            for ending in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, ending)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(30)


def answers(address: str) -> bool:
    """Whether a page is there."""
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def kept(tab: Any, name: str) -> None:
    """Keep a picture of what a tab of the browser shows."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=str(SCREENSHOTS / f"{name}.png"))
