"""The device is held by one at a time, and bad settings are told."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from retrain_assets.defs.resources import Device, build_resources
from retrain_assets.errors import BadInput
from retrain_assets.home import Home


def test_a_device_has_one_holder_at_a_time(tmp_path: Path) -> None:
    device = Device(device="cpu", threads=os.cpu_count() or 1, locks=str(tmp_path))
    order: list[str] = []

    def second() -> None:
        with device.lease():
            order.append("second")

    with device.lease() as name:
        assert name == "cpu"
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.5)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_the_cpu_has_room_for_as_many_holders_as_its_threads_fit(tmp_path: Path) -> None:
    device = Device(device="cpu", threads=1, locks=str(tmp_path))
    with contextlib.ExitStack() as held:
        names = [held.enter_context(device.lease()) for _ in range(os.cpu_count() or 1)]
    assert set(names) == {"cpu"}


def test_a_failing_holder_gives_the_device_back(tmp_path: Path) -> None:
    device = Device(device="cpu", threads=1, locks=str(tmp_path))
    with pytest.raises(ValueError, match="in the block"), device.lease():
        raise ValueError("in the block")
    with device.lease() as name:
        assert name == "cpu"


def test_a_lease_fixes_the_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        with Device(device="cpu", threads=3, locks=str(tmp_path)).lease():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    absent = f"cuda:{torch.cuda.device_count()}"
    with (
        pytest.raises(BadInput, match=rf"no device '{absent}' here: choose auto, .*cpu"),
        Device(device=absent, threads=1, locks=str(tmp_path)).lease(),
    ):
        pytest.fail("it was leased")


@pytest.mark.parametrize("threads", ["0", "two", "-1"])
def test_threads_that_are_no_number_are_told(
    threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_THREADS", threads)
    with pytest.raises(BadInput, match="RETRAIN_THREADS is"):
        build_resources(Home(tmp_path))
