"""Processes that are killed at any moment, run out of disk, or do the same at once.

Whatever happens, what is visible is whole, and another run ends with what an undisturbed one has.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.files import read_json
from retrain_assets.training.adapter_store import ModelStore
from retrain_assets.work import Retrain, Search
from retrain_assets_tests import children
from retrain_assets_tests.installed import MONTH
from retrain_assets_tests.tiny import write_base

DAY = 86400.0
SEARCH = Search(
    grid={"num_samples": (2,), "temperature": (0.6, 1.0), "top_k": (None,), "top_p": (None,)}
)


class ToTheSearch(Retrain):
    """A run that ends with the search."""

    def assets(self) -> list[str]:
        """All but what compares and decides."""
        return [*super().assets()[: super().assets().index("comparison")]]


# Two epochs, of which the second is cut short.
SHORT = ToTheSearch(("kronos",), bases={"kronos": "tiny"}, max_steps=20, search=SEARCH)
BOTH = Retrain(
    ("kronos", "toto"), bases={"kronos": "tiny", "toto": "tiny"}, max_steps=20, search=SEARCH
)
RANDOM_KILLS = 30
pytestmark = pytest.mark.timeout(1800)  # a process each, on a machine that may be busy


@dataclass(frozen=True)
class Undisturbed:
    """What a run left behind that nothing happened to, and the moments that it passed."""

    results: Mapping[str, Any]
    moments: list[str]
    seconds: float


def undisturbed(template: Path, folder: Path, work: Retrain) -> Undisturbed:
    shutil.copytree(template, folder / "data")
    started = time.monotonic()
    assert children.done(children.retrain, folder / "data", work, moments=folder / "moments") == 0
    seconds = time.monotonic() - started
    assert children.left_over(folder / "data") == []
    moments = (folder / "moments").read_text().splitlines()
    return Undisturbed(children.results(folder / "data"), moments, seconds)


@pytest.fixture(scope="module")
def short(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(template, tmp_path_factory.mktemp("short"), SHORT)


@pytest.fixture(scope="module")
def both(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(template, tmp_path_factory.mktemp("both"), BOTH)


KILLS = [
    ("in the second epoch", ("step", 18)),
    ("when an adapter's folder is full, but for the end of its last file", ("writing .record", 1)),
    ("in the search", ("round", 2)),
]


def test_a_run_that_is_killed_again_and_again_ends_the_same(
    short: Undisturbed, template: Path, tmp_path: Path
) -> None:
    """In another zone each time, and by a clock that jumps back by two days in between."""
    root = tmp_path / "data"
    shutil.copytree(template, root)
    for (when, die), zone in zip(KILLS, ("America/New_York", "Asia/Tokyo", "UTC"), strict=True):
        arguments = {"die": die, "zone": zone, "clock": DAY}
        assert children.done(children.retrain, root, SHORT, **arguments) == -signal.SIGKILL, when
        assert bool(children.left_over(root)) == (when != "in the search")
        seen = children.results(root)  # which reads all that can be seen
        assert seen.items() <= short.results.items(), when
    assert children.done(children.retrain, root, SHORT, zone="Asia/Kolkata", clock=-DAY) == 0
    assert children.results(root) == short.results
    assert children.left_over(root) == []
    record = read_json(root / "assets" / "kronos_adapter" / MONTH / "AAA.json")
    assert record["metrics"]["measured"]["resumed_at_epoch"] == 2


@pytest.mark.long
@pytest.mark.parametrize("draw", range(RANDOM_KILLS))
def test_a_run_killed_at_a_random_moment_goes_on_and_ends_the_same(
    both: Undisturbed, template: Path, tmp_path: Path, draw: int
) -> None:
    """At two of three draws at a moment in which something is written, at a third at any time."""
    root, drawn = tmp_path / "data", random.Random(draw)
    shutil.copytree(template, root)
    if draw % 3:
        die = ("", drawn.randint(1, len(both.moments)))
        assert children.done(children.retrain, root, BOTH, die=die) == -signal.SIGKILL
    else:
        process = children.start(children.retrain, root, BOTH)
        process.join(drawn.uniform(0.1, 0.95) * both.seconds)
        process.kill()
        assert children.ended(process) in (-signal.SIGKILL, 0)
    children.results(root)
    assert children.done(children.retrain, root, BOTH) == 0
    assert children.results(root) == both.results
    assert children.left_over(root) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_base(tmp_path / "checkpoints")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an adapter was trained that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    write_base(folder / "checkpoints")
    answer = folder / "answer"
    assert children.done(children.train, folder, {}, answer) == 0
    assert not told(answer)["reused"]
    return folder


def told(answer: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(answer.read_text())
    return value


def models(root: Path) -> dict[str, Any]:
    """Adapters below a folder, but for the pointer to the latest."""
    found = children.results(root)
    return {path: content for path, content in found.items() if "latest" not in path}


def test_a_second_process_waits_and_takes_what_the_first_has_trained(
    root: Path, whole: Path
) -> None:
    first = children.start(
        *(children.train, root, {}, root / "first"),
        begun=root / "begun",
        until=root / "second.said",
    )
    children.wait_for(root / "begun")
    assert children.done(children.train, root, {}, root / "second") == 0
    assert children.ended(first) == 0
    one, two = told(root / "first"), told(root / "second")
    assert (one["reused"], two["reused"]) == (False, True)
    assert two["said"][0] == "another process is at this very adapter: waiting"
    assert "is complete already: nothing to train" in two["said"][1]
    assert one["record"] == two["record"]
    assert children.results(root) == children.results(whole)


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.long)])
def test_whoever_waits_goes_on_where_a_killed_process_was(
    root: Path, whole: Path, epoch: int
) -> None:
    first = children.start(
        *(children.train, root, {}, root / "first"),
        **{"begun": root / "begun", "until": root / "never", "epoch": epoch + 1},
    )
    children.wait_for(root / "begun")
    second = children.start(children.train, root, {}, root / "second")
    children.wait_for(root / "second.said")
    first.kill()
    assert children.ended(first) == -signal.SIGKILL
    assert children.ended(second) == 0
    two = told(root / "second")
    assert not two["reused"]
    assert two["record"]["metrics"]["measured"]["resumed_at_epoch"] == epoch
    assert children.results(root) == children.results(whole)


def test_two_adapters_of_one_partition_do_not_disturb_each_other(root: Path, whole: Path) -> None:
    first = children.start(
        *(children.train, root, {}, root / "first"), begun=root / "begun", until=root / "second"
    )
    children.wait_for(root / "begun")
    assert children.done(children.train, root, {"seed": 6}, root / "second") == 0
    assert children.ended(first) == 0
    one, two = told(root / "first"), told(root / "second")
    assert one["said"] == two["said"] == []
    assert (one["reused"], two["reused"]) == (False, False)
    assert one["record"]["digest"] != two["record"]["digest"]
    assert models(whole).items() <= models(root).items()
    latest = ModelStore(root / "models").latest("kronos", "2023-08", "BRK.B")
    assert latest is not None
    assert latest.to_json() == one["record"], "which was written last"


@pytest.mark.parametrize("checkpoints_fit", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_full_disk_is_told_and_what_was_done_is_gone_on_with(
    root: Path, whole: Path, checkpoints_fit: bool
) -> None:
    """No file may grow beyond a limit: what a full disk does, to a process that can be limited."""
    full = {"limit": 2048, "from_start": not checkpoints_fit}
    assert children.done(children.train, root, {}, root / "first", **full) == 0
    failed = told(root / "first")
    assert failed["kind"] == "CannotWrite"
    assert os.strerror(errno.EFBIG) in failed["error"]
    assert "make room on the disk" in failed["error"]
    (partition,) = (root / "models").glob("kronos/*/*")
    named = Path(failed["error"].split()[2])
    assert named.parent == (
        partition if checkpoints_fit else partition / f".{stem(whole)}.training"
    )
    assert children.results(root) == {}
    assert not [path for path in children.left_over(root) if path.suffix == ".partial"]
    assert children.done(children.train, root, {}, root / "second") == 0
    resumed = told(root / "second")["record"]["metrics"]["measured"]["resumed_at_epoch"]
    assert resumed == (3 if checkpoints_fit else None)
    assert children.results(root) == children.results(whole)
    assert children.left_over(root) == []


def stem(root: Path) -> str:
    """Name of the one adapter's folder below a folder."""
    (record,) = (root / "models").rglob("record.json")
    return record.parent.name


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of a few bytes mounted at a folder; skips the test where that is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk can only be mounted by root, where the system permits it")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_told_and_goes_on_once_there_is_room(
    root: Path, whole: Path
) -> None:
    small = root / "models"
    with small_disk(small, "96k"):
        assert children.done(children.train, root, {}, root / "first") == 0
        failed = told(root / "first")
        assert failed["kind"] == "CannotWrite"
        assert os.strerror(errno.ENOSPC) in failed["error"]
        assert children.results(root) == {}
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert children.done(children.train, root, {}, root / "second") == 0
        assert children.results(root) == children.results(whole)
