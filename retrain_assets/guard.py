"""Ends a process group when whoever started it is gone, however it went.

    python -m retrain_assets.guard GROUP

It waits until its standard input closes, which the system does for a process that is killed too.
A server whose first process alone is killed would otherwise leave workers that hold its port.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_PATIENCE = 10.0  # seconds between the request to end and the end


def run_guarded(command: Sequence[str]) -> int:
    """Run a server until it ends or this process does; returns its exit code.

    None of the processes it has started outlives it, nor this one. Ctrl-C and SIGTERM end all.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    server = subprocess.Popen(command, start_new_session=True)
    guard = subprocess.Popen(
        [sys.executable, "-m", "retrain_assets.guard", str(server.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for the guard
    )
    try:
        return server.wait()
    finally:
        guard.communicate()  # closes its input, and waits until it is done
        server.wait()


def end_group(group: int) -> None:
    """Ask all processes of a group to end, then make them."""
    deadline = time.monotonic() + _PATIENCE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            time.sleep(0.1)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_group(int(sys.argv[1]))
