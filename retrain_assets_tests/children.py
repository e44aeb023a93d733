"""Processes of the survival tests: they do real work, and die of SIGKILL at a chosen moment.

They are forked from a process that has imported everything, so that one costs what it does.
"""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from retrain_assets import files
from retrain_assets.errors import RetrainError
from retrain_assets.evaluation.trials import Trials
from retrain_assets.market.calendar import sessions
from retrain_assets.models import lora
from retrain_assets.training import trainer
from retrain_assets.work import Retrain
from retrain_assets_tests.finished import ran
from retrain_assets_tests.installed import entered
from retrain_assets_tests.training.test_adapters import prepared

# What a run would import or lay out as it goes on.
for heavy in (
    *("exchange_calendars", "matplotlib.pyplot", "mlflow.store.tracking.sqlalchemy_store", "peft"),
    *("pandera.pandas", "scoringrules", "statsforecast.models", "utilsforecast.losses"),
):
    importlib.import_module(heavy)
sessions("XNYS", pd.Timestamp("2023-08-01"), pd.Timestamp("2023-08-31"))

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(work: Callable[..., None], *arguments: object, **named: object) -> Any:
    """A process that does some work; a function of a module, and arguments it can be sent."""
    process = CONTEXT.Process(target=work, args=arguments, kwargs=named)
    process.start()
    return process


def ended(process: Any, *, seconds: float = 600) -> int:
    """The exit code of a process; one that does not end in time is killed, and fails the test."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"{process} did not end within {seconds} s")
    code: int = process.exitcode
    return code


def done(work: Callable[..., None], *arguments: object, **named: object) -> int:
    """The exit code of a process that does some work."""
    return ended(start(work, *arguments, **named))


def retrain(
    root: Path,
    work: Retrain,
    *,
    die: tuple[str, int] | None = None,
    moments: Path | None = None,
    zone: str | None = None,
    clock: float = 0.0,
) -> None:
    """Run one stock through the whole pipeline in the data folder `root`.

    die: at which of the moments that begin with these words, counted from 1. moments: file that
    lists all moments. zone: the local time zone. clock: seconds by which the clock is wrong.
    """
    with pytest.MonkeyPatch.context() as patch:
        if zone:
            patch.setenv("TZ", zone)
            time.tzset()
        if clock:
            _set_clock(patch, clock)
        home = entered(root, patch)
        _watch(patch, die, moments)
        (outcome,) = ran(home, "AAA", work=work).values()
    if outcome.failures:
        raise SystemExit(f"it failed: {outcome.failures}")


def _set_clock(patch: pytest.MonkeyPatch, seconds: float) -> None:
    right, right_ns = time.time, time.time_ns
    patch.setattr(time, "time", lambda: right() + seconds)
    patch.setattr(time, "time_ns", lambda: right_ns() + int(seconds * 1e9))


def _watch(patch: pytest.MonkeyPatch, die: tuple[str, int] | None, moments: Path | None) -> None:
    """Count the moments at which a kill is worth a look, and die at one of them."""
    count = itertools.count(1)

    def moment(what: str, last: Callable[[], None] = lambda: None) -> None:
        if moments:
            with moments.open("a") as listed:
                listed.write(f"{what}\n")
        if die and what.startswith(die[0]) and next(count) == die[1]:
            last()
            os.kill(os.getpid(), signal.SIGKILL)

    def halved(file: Path) -> Callable[[], None]:
        return lambda: os.truncate(file, file.stat().st_size // 2)

    def flush(file: Path, original: Callable[[Path], None] = files._flush) -> None:
        moment(f"writing {file.name}", halved(file))  # as if it had died in the middle of it
        original(file)

    patch.setattr(files, "_flush", flush)
    for owner, name, what in (
        (files, "_swap_in", "a folder is in place"),
        (Path, "replace", "a file is in place"),
        (trainer._Loop, "_step", "step"),
        (Trials, "measure", "round"),
    ):
        patch.setattr(owner, name, _then(getattr(owner, name), lambda what=what: moment(what)))


def _then(original: Callable[..., Any], after: Callable[[], None]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        after()
        return result

    return wrapped


CLOCKED = frozenset({"measured", "seconds", "decided_at", "latency_s", "latency_p95_s"})
"""Fields of JSON files that the clock fills in."""
LASTING = ("models", "assets", "results", "production")
"""Folders of what a run stores for good."""


def results(root: Path) -> dict[str, Any]:
    """Everything that runs have stored for good, by path, without what the clock says.

    Every file is read as what it is, so one that is not whole fails.
    """
    return {
        str(file.relative_to(root)): _content(file)
        for folder in LASTING
        for file in sorted((root / folder).rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.parts)
    }


def _content(file: Path) -> Any:
    if file.suffix == ".json":
        return _timeless(json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".parquet":
        frame = pd.read_parquet(file)
        return frame.to_csv(float_format="%.17g"), str(frame.dtypes)
    if file.suffix == ".safetensors":
        return {name: t.numpy().tobytes() for name, t in sorted(load_file(file).items())}
    return re.sub(
        r" +(\d+ ms|[\d.]+ s\b)?", " ", file.read_text(encoding="utf-8")
    )  # latencies, in columns


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(v) for name, v in value.items() if name not in CLOCKED}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def left_over(root: Path) -> list[Path]:
    """Temporary files and working folders that somebody has left."""
    folders = [root / folder for folder in LASTING]
    return [p for f in folders for p in f.rglob(".*") if p.suffix in (".partial", ".training")]


def train(
    root: Path,
    changes: Mapping[str, Any],
    answer: Path,
    *,
    begun: Path | None = None,
    until: Path | None = None,
    epoch: int = 1,
    limit: int | None = None,
    from_start: bool = True,
) -> None:
    """Train one adapter below `root`, and write to `answer` what was said and what came of it.

    changes: of the arguments of `prepared`. begun, until: a file to make at the end of an epoch,
    and one to wait for then. limit: bytes that no file may grow beyond, from the start or from
    when the adapter's folder is written.
    """
    training = prepared(root, **changes)
    said: list[str] = []

    def report(now: trainer.Progress) -> None:
        if now.message:
            said.append(now.message)
            answer.with_suffix(".said").write_text(now.message)
        if begun and until and now.validation_loss is not None and now.epoch == epoch:
            begun.touch()
            wait_for(until)

    def save(*arguments: Any, original: Any = lora.save, **named: Any) -> None:
        _limit(limit)
        original(*arguments, **named)

    if from_start:
        _limit(limit)
    else:
        lora.save = save
    try:
        trained = training.train(report=report, notes={"mlflow_run": "r1"})
        told = {"record": trained.record.to_json(), "reused": trained.reused}
    except RetrainError as error:
        told = {"error": str(error), "kind": type(error).__name__}
    _limit(None)
    answer.write_text(json.dumps(told | {"said": said}))


def _limit(size: int | None) -> None:
    """Let no file grow beyond so many bytes: what a full disk does, to one process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    most = resource.RLIM_INFINITY if size is None else size
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def wait_for(file: Path, *, seconds: float = 120) -> None:
    """Wait until a file is there; raises TimeoutError if it does not come."""
    ends = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > ends:
            raise TimeoutError(f"{file} did not come within {seconds} s")
        time.sleep(0.02)
