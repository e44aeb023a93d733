"""Whoever of a guarded server is killed, nothing of it is left, and its port is free."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from retrain_assets.commands.servers import HOST, require_free
from retrain_assets.errors import BadInput
from retrain_assets_tests.ports import free_port

# As MLflow's: a first process, and workers that hold the port and do not care for it.
SERVER = """
import socket, subprocess, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listening.set_inheritable(True)
WORKER = '''
import signal, sys, time
if sys.argv[2:]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
'''
subprocess.Popen([sys.executable, "-c", WORKER, *sys.argv[1:]], close_fds=False)
time.sleep(600)
"""
STARTER = """
import sys
from retrain_assets.guard import run_guarded
sys.exit(run_guarded([sys.executable, *sys.argv[1:]]))
"""


def gone(processes: list[psutil.Process], seconds: float = 60) -> bool:
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("who", "how", "deaf"),
    [
        ("starter", signal.SIGKILL, False),
        ("starter", signal.SIGKILL, True),
        pytest.param("starter", signal.SIGTERM, False, marks=pytest.mark.long),
        pytest.param("starter", signal.SIGINT, False, marks=pytest.mark.long),
        ("server", signal.SIGKILL, False),
    ],
)
def test_nothing_of_a_server_is_left(tmp_path: Path, who: str, how: int, deaf: bool) -> None:
    script, port = tmp_path / "server.py", free_port()
    script.write_text(SERVER)
    command = [sys.executable, "-c", STARTER, str(script), str(port), *(["deaf"] if deaf else [])]
    starter = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        with pytest.raises(BadInput, match=rf"port {port} of {HOST}.*by process \d+.*--port"):
            require_free(port, "mlflow")
        family = psutil.Process(starter.pid).children(recursive=True)
        deadline = time.monotonic() + 60
        while len(family) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            family = psutil.Process(starter.pid).children(recursive=True)
        (server,) = [one for one in family if one.ppid() == starter.pid and port_in(one, port)]
        os.kill(starter.pid if who == "starter" else server.pid, how)
        assert starter.wait(60) != 0
        assert gone(family)
        require_free(port, "mlflow")
    finally:
        starter.kill()
        starter.wait()


def port_in(process: psutil.Process, port: int) -> bool:
    return str(port) in process.cmdline()


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.1)
        else:
            return
