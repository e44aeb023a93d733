"""A card, or a place on the CPU, has one holder at a time, and a process stays on its card."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from retrain_assets import cards
from retrain_assets.cards import Card
from retrain_assets.definitions import build_definitions
from retrain_assets.defs.device import Device
from retrain_assets.defs.resources import build_resources
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.home import Home
from retrain_assets_tests.defs.made_up_cards import (
    FAKE_NVML,
    FAKE_TORCH,
    GB,
    STARTER,
    Machine,
    card,
    until,
)


@pytest.fixture(scope="module")
def starter() -> Iterator[subprocess.Popen[str]]:
    environment = {name: v for name, v in os.environ.items() if name != cards.VISIBLE}
    with subprocess.Popen(
        [sys.executable, "-c", STARTER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def machine(starter: subprocess.Popen[str], tmp_path: Path) -> Machine:
    site = tmp_path / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text(FAKE_TORCH)
    (site / "pynvml.py").write_text(FAKE_NVML)
    (site / "torch-9.9.dist-info").mkdir()
    (site / "torch-9.9.dist-info" / "METADATA").write_text("Name: torch\nVersion: 9.9\n")
    return Machine(starter, site)


def test_two_runs_never_meet_on_one_card(machine: Machine) -> None:
    holding = """
        assert "torch" not in sys.modules
        for _ in range(3):
            with device().lease() as name:
                import torch
                begun = time.monotonic()
                time.sleep(0.15)
                print(json.dumps([torch.SEEN, name, begun, time.monotonic()]))
            time.sleep(0.02)
    """
    processes = [machine.start([card(0), card(1)], holding) for _ in range(4)]
    held: dict[str, list[tuple[float, float]]] = {}
    for process in processes:
        rows = [json.loads(line) for line in process.lines()]
        assert [name for _, name, _, _ in rows] == ["cuda:0"] * 3
        (seen,) = {seen for seen, _, _, _ in rows}  # it stays on the card it took first
        held.setdefault(seen, []).extend((begun, ended) for _, _, begun, ended in rows)
    assert set(held) == {card(0)["uuid"], card(1)["uuid"]}
    for intervals in held.values():
        intervals.sort()
        for (_, ended), (begun, _) in itertools.pairwise(intervals):
            assert ended <= begun


def test_a_killed_holder_gives_its_card_back(machine: Machine) -> None:
    held = 'with device().lease(): print("held", flush=True); time.sleep(600)'
    holder = machine.start([card(0)], held)
    until(lambda: holder.out.exists() and holder.out.read_text() == "held\n")
    other = machine.start([card(0)], 'with device().lease(): print("free")')
    time.sleep(1)
    assert psutil.pid_exists(other.pid)
    os.kill(holder.pid, signal.SIGKILL)
    assert other.lines() == ["free"]


@pytest.mark.parametrize(
    ("given", "asked", "seen"),
    [
        ({}, "auto", 0),
        ({}, "cuda:1", 1),
        ({"CUDA_VISIBLE_DEVICES": "2,1"}, "auto", 2),
        ({"CUDA_VISIBLE_DEVICES": "2,1"}, "cuda:1", 1),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, "cuda", 1),
    ],
)
def test_what_the_user_lets_see_limits_the_choice(
    machine: Machine, given: dict[str, str], asked: str, seen: int
) -> None:
    code = f"with device({asked!r}).lease() as name: import torch; print(torch.SEEN, name)"
    listed = [card(i) for i in range(3)]
    assert machine.lines(listed, code, **given) == [f"{listed[seen]['uuid']} cuda:0"]


def test_a_card_that_others_have_filled_is_tried_last(machine: Machine) -> None:
    listed = [card(0, free=GB), card(1)]
    code = "with device().lease(): import torch; print(torch.SEEN)"
    assert machine.lines(listed, code) == [listed[1]["uuid"]]


def test_a_process_that_has_opened_cuda_takes_a_card_by_its_index(machine: Machine) -> None:
    code = """
        import torch; torch.cuda.init()
        with device("cuda:1").lease() as name: print(name, torch.SEEN)
        with device().lease() as name: print(name)
        try:
            with device("cuda:0").lease(): print("moved")
        except Exception as error: print(error)
    """
    first, again, refused = machine.lines([card(0), card(1)], code)
    assert (first, again) == ("cuda:1 None", "cuda:1")
    assert "computes on NVIDIA H100 (cuda-1) already and cannot change to cuda:0" in refused


def test_cuda_that_was_opened_on_another_card_is_told(machine: Machine) -> None:
    code = """
        import torch; torch.cuda.opened = ["GPU-elsewhere"]; torch.cuda.is_initialized = lambda: 0
        try:
            with device().lease(): print("leased")
        except Exception as error: print(type(error).__name__, error)
        print(device().places)
    """
    told, _ = machine.lines([card(0)], code)
    assert told.startswith("RetrainError NVIDIA H100 (cuda-0) is free, but this process has opened")


def test_what_a_holder_starts_may_take_another_card(machine: Machine) -> None:
    child = "import os; from retrain_assets import cards; print(len(cards.usable()), cards.given())"
    code = f"""
        import subprocess
        with device("cuda:1").lease():
            print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
            subprocess.run([sys.executable, "-c", {child!r}], check=True)
    """
    listed = [card(0), card(1)]
    assert machine.lines(listed, code) == [listed[1]["uuid"], "2 None"]


def test_a_lease_says_what_it_is(machine: Machine) -> None:
    code = """
        with device().lease() as name: print(device().describe(name))
        for one in device().hardware(): print(one.device, one.dtypes)
    """
    first, *rest = machine.lines([card(0), card(1, bf16=False)], code)
    assert first == "NVIDIA H100, 79 of 80 GB free, fp32 and bf16"
    assert rest[:2] == ["cuda:0 ('fp32', 'bf16')", "cuda:1 ('fp32',)"]
    assert rest[2].startswith("cpu ('fp32'")


def test_the_instances_of_a_card_are_cards(machine: Machine) -> None:
    parts = [{"uuid": "MIG-a", "free": 9 * GB, "total": 10 * GB}, {"uuid": "MIG-b"}]
    code = """
        from retrain_assets import cards
        print([c.place for c in cards.usable()])
        with device().lease() as name: import torch; print(torch.SEEN, name)
    """
    listed = [card(0, mig=parts), card(1)]
    places, seen = machine.lines(listed, code, CUDA_VISIBLE_DEVICES="MIG-b")
    assert (places, seen) == ("['cuda-0-mig-1']", "MIG-b cuda:0")
    places, _ = machine.lines(listed, code)
    assert places == "['cuda-0-mig-0', 'cuda-0-mig-1', 'cuda-1']"


def test_a_machine_without_a_driver_has_no_cards(machine: Machine) -> None:
    assert machine.lines("absent", "from retrain_assets import cards; print(cards.usable())") == [
        "[]"
    ]


def test_a_driver_that_does_not_answer_is_told(machine: Machine) -> None:
    code = """
        from retrain_assets import cards
        try: cards.usable()
        except Exception as error: print(type(error).__name__, error)
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        print(cards.usable())
    """
    told, hidden = machine.lines("broken", code)
    assert told.startswith("RetrainError NVIDIA's driver does not answer (version mismatch)")
    assert "CUDA_VISIBLE_DEVICES=-1" in told
    assert hidden == "[]"


def test_an_entry_that_names_nothing_hides_the_rest() -> None:
    there = [Card(i, None, f"GPU-{i}", "H100", GB, GB, True) for i in range(3)]
    assert [c.index for c in cards.visible(there, "2, 0")] == [2, 0]
    assert [c.index for c in cards.visible(there, "1,7,0")] == [1]
    assert cards.visible(there, "") == []


def test_a_place_on_the_cpu_has_one_holder_at_a_time(tmp_path: Path) -> None:
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
    assert device.places == (os.cpu_count() or 1)
    with contextlib.ExitStack() as held:
        names = [held.enter_context(device.lease()) for _ in range(os.cpu_count() or 1)]
    assert set(names) == {"cpu"}


def test_a_failing_holder_gives_the_device_back(tmp_path: Path) -> None:
    device = Device(device="cpu", threads=os.cpu_count() or 1, locks=str(tmp_path))
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
    absent = f"cuda:{len(cards.usable())}"
    with (
        pytest.raises(BadInput, match=rf"no device '{absent}' here: choose auto, .*cpu"),
        Device(device=absent, threads=1, locks=str(tmp_path)).lease(),
    ):
        pytest.fail("it was leased")


@pytest.mark.parametrize("written", ["gpu", "cuda:", "cuda:one", "CPU", ""])
def test_a_device_that_is_none_is_refused_at_once(tmp_path: Path, written: str) -> None:
    with pytest.raises(RetrainError, match=f"no device '{written}': write auto, cpu, cuda"):
        build_resources(Home(tmp_path), device=written)


@pytest.mark.parametrize("threads", ["0", "two", "-1"])
def test_threads_that_are_no_number_are_told(
    threads: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_THREADS", threads)
    with pytest.raises(BadInput, match="RETRAIN_THREADS is"):
        build_resources(Home(tmp_path))


def test_whatever_takes_a_device_is_in_the_pool(tmp_path: Path) -> None:
    repository = build_definitions(Home(tmp_path)).get_repository_def()
    ops = {d.op.name: d.op for d in repository.assets_defs_by_key.values()}
    ops |= {d.op.name: d.op for d in repository.asset_checks_defs_by_key.values()}
    taking = {name for name, op in ops.items() if "device" in op.required_resource_keys}
    assert {"kronos_adapter", "comparison", "champion"} < taking
    assert len([name for name in taking if "reload" in name or "reproduce" in name]) >= 2
    assert {name for name, op in ops.items() if op.pool == "gpu"} == taking
