"""A worker process whose parent was killed does not run on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

PARENT = """\
import multiprocessing, time
from retrain_assets.orphans import end_with_parent

def work():
    end_with_parent()
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=work)
    worker.start()
    print(worker.pid, flush=True)
    worker.join()
"""


def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(1)  # long enough for it to have begun to watch, and it runs on meanwhile
    assert worker.is_running()
    parent.kill()
    parent.wait()
    psutil.wait_procs([worker], timeout=30)
    assert not worker.is_running()
