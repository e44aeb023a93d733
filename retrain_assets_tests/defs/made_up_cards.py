"""A machine with made-up cards, which processes see through stand-ins of driver and torch."""

from __future__ import annotations

import json
import subprocess
import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

GB = 2**30


H100 = {"name": "NVIDIA H100", "free": 79 * GB, "total": 80 * GB, "bf16": True}


# What the driver's and torch's packages answer on a machine whose cards FAKE_CARDS lists.
FAKE_NVML = """
import json, os
class NVMLError(Exception): ...
class NVMLError_LibraryNotFound(NVMLError): ...
class NVMLError_DriverNotLoaded(NVMLError): ...
class NVMLError_NotSupported(NVMLError): ...
class NVMLError_NotFound(NVMLError): ...
NVML_DEVICE_MIG_ENABLE = 1
_cards = json.loads(os.environ["FAKE_CARDS"])
class _Memory:
    def __init__(self, card): self.free, self.total = card["free"], card["total"]
def nvmlInit():
    if _cards == "broken": raise NVMLError("version mismatch")
    if _cards == "absent": raise NVMLError_LibraryNotFound()
def nvmlShutdown(): ...
def nvmlDeviceGetCount(): return len(_cards)
def nvmlDeviceGetHandleByIndex(index): return _cards[index]
def nvmlDeviceGetUUID(card): return card["uuid"]
def nvmlDeviceGetName(card): return card["name"]
def nvmlDeviceGetCudaComputeCapability(card): return (9, 0) if card["bf16"] else (7, 5)
def nvmlDeviceGetMemoryInfo(card): return _Memory(card)
def nvmlDeviceGetMigMode(card):
    if "mig" not in card: raise NVMLError_NotSupported()
    return 1, 1
def nvmlDeviceGetMaxMigDeviceCount(card): return 7
def nvmlDeviceGetMigDeviceHandleByIndex(card, i):
    if i >= len(card["mig"]): raise NVMLError_NotFound()
    return card | card["mig"][i]
"""


FAKE_TORCH = """
import os, json
SEEN = os.environ.get("CUDA_VISIBLE_DEVICES")
def set_num_threads(threads): ...
class cuda:
    opened = None
    class _Properties:
        def __init__(self, uuid): self.uuid = uuid
    @staticmethod
    def is_initialized(): return cuda.opened is not None
    @staticmethod
    def init():
        every = [card["uuid"] for card in json.loads(os.environ["FAKE_CARDS"])]
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        cuda.opened = cuda.opened or (every if shown is None else shown.split(","))
    @staticmethod
    def device_count(): return len(cuda.opened)
    @staticmethod
    def get_device_properties(index):
        return cuda._Properties(cuda.opened[index].removeprefix("GPU-"))
"""


def card(index: int, **changed: Any) -> dict[str, Any]:
    """A card as the fake driver lists it."""
    return {"uuid": f"GPU-{index}0000000-0000", **H100, **changed}


# Starts pieces of code in processes of their own, in which `Device` is imported already.
STARTER = """
import json, os, signal, sys, traceback
from retrain_assets.defs.device import Device
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(job["out"], os.O_WRONLY | os.O_CREAT)
        for stream in (0, 1, 2):
            os.dup2(out, stream)
        os.environ.update(job["environment"])
        sys.path.insert(0, os.environ["PYTHONPATH"])
        code = 1
        try:
            exec(job["code"], {"Device": Device})
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
"""


HEAD = """
import json, os, sys, time
def device(asked="auto"):
    return Device(device=asked, threads=1, locks=os.environ["LOCKS"])
"""


@dataclass
class Machine:
    """Processes on a machine with made-up cards. site: folder of the driver's package, of torch."""

    starter: subprocess.Popen[str]
    site: Path

    def start(self, listed: Any, code: str, **environment: str) -> Started:
        """Begin a piece of code; `device(...)` in it is a `Device`."""
        assert self.starter.stdin
        assert self.starter.stdout
        out = self.site.parent / f"{uuid.uuid4().hex}.out"
        environment |= {"PYTHONPATH": str(self.site), "LOCKS": str(self.site.parent / "locks")}
        environment |= {"FAKE_CARDS": json.dumps(listed)}
        job = {"code": HEAD + textwrap.dedent(code), "out": str(out), "environment": environment}
        self.starter.stdin.write(json.dumps(job) + "\n")
        self.starter.stdin.flush()
        return Started(int(self.starter.stdout.readline()), out)

    def lines(self, listed: Any, code: str, **environment: str) -> list[str]:
        """What a piece of code prints."""
        return self.start(listed, code, **environment).lines()


@dataclass
class Started:
    """A process under way; out: what it prints."""

    pid: int
    out: Path

    def lines(self) -> list[str]:
        """What it has printed, once it has ended."""
        until(lambda: not psutil.pid_exists(self.pid))
        text = self.out.read_text()
        assert "Traceback" not in text, text
        return text.splitlines()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
