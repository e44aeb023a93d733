"""Where models run: a card, or a place on the CPU, that one run holds at a time.

The pool `gpu` counts how many runs may compute; a lease says which card each of them computes on.
A card is held by a lock on a file, which the system drops with the process that held it. CUDA is
opened once in a process and cannot move afterwards, so a process stays on the card it took first.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, field_validator

from retrain_assets import cards
from retrain_assets.cards import Card
from retrain_assets.errors import BadInput, RetrainError

if TYPE_CHECKING:
    from filelock import FileLock

THREADS = 1
"""CPU threads by default: a second stock at the same time gains more than a second thread."""
CPU, MPS, CUDA, AUTO = "cpu", "mps", "cuda", "auto"
_CHOICE = re.compile(r"auto|cpu|cuda|cuda:\d+|mps")
_PAUSE = 0.2  # seconds between two looks at places that are all held

_taken: Card | None = None
"""The card that this process has taken, and stays on."""


@dataclass(frozen=True)
class Hardware:
    """What a device is. free, total: bytes of memory. dtypes: that it multiplies natively."""

    device: str
    name: str
    free: int
    total: int
    dtypes: tuple[str, ...]

    def __str__(self) -> str:
        free, total = (f"{value / 2**30:.0f}" for value in (self.free, self.total))
        return f"{self.name}, {free} of {total} GB free, {' and '.join(self.dtypes)}"


@dataclass(frozen=True)
class _Place:
    """What a lock stands for. device: as it is asked for; card: if it is one."""

    device: str
    lock: str
    card: Card | None = None


class Device(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """Where models run: one holder at a time for each card, on the CPU one for each core or so."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int = Field(
        THREADS, ge=1, description="CPU threads; fixed, because results on the CPU depend on it."
    )
    locks: str = Field(description="Folder of the lock files, one a device.")

    @field_validator("device")
    @classmethod
    def _written_so(cls, value: str) -> str:
        if not _CHOICE.fullmatch(value):
            raise BadInput(f"there is no device {value!r}: write auto, cpu, cuda, cuda:0 or mps")
        return value

    @contextlib.contextmanager
    def lease(self) -> Iterator[str]:
        """Hold a device and yield torch's name of it; waits while all that are allowed are held.

        `auto` takes any card that is free, else the CPU; `cuda:N` the N-th that is visible here.
        Apple's is taken on request alone: it has no float64, which the draws of Kronos need.
        Raises BadInput, with what there is, for a device that is not there.
        """
        from filelock import FileLock

        folder = Path(self.locks)
        folder.mkdir(parents=True, exist_ok=True)
        place, lock = _first_free([(p, FileLock(folder / p.lock)) for p in self._allowed()])
        try:
            name = _entered(place)
            _use_threads(self.threads)
            dg.get_dagster_logger().info(f"device: {self.describe(name)}")
            yield name
        finally:
            lock.release()

    def describe(self, name: str) -> Hardware:
        """What a device that was leased in this process is, and what memory it has now."""
        if name.startswith(CUDA):
            return next(_of_card(name, card) for card in cards.usable() if _is_taken(card))
        return _of_machine(name)

    def hardware(self) -> list[Hardware]:
        """Everything there is to choose from, the CPU last."""
        found = [_of_card(name, card) for name, card in _numbered().items()]
        return [*found, *([_of_machine(MPS)] if _has_mps() else []), _of_machine(CPU)]

    @property
    def kind(self) -> str:
        """What a lease will give, before there is one: a name that begins with cuda, cpu or mps."""
        return self._allowed()[0].device

    @property
    def places(self) -> int:
        """How many may hold a device at a time."""
        return len(self._allowed())

    def _allowed(self) -> list[_Place]:
        """What may be held, what is to be tried first in front; never empty."""
        numbered = _numbered() if self.device.startswith((AUTO, CUDA)) else {}
        wanted = {n: c for n, c in numbered.items() if self.device in {AUTO, CUDA, n}}
        if wanted:
            return _on_cards(wanted, asked=self.device)
        if self.device in {AUTO, CPU}:
            many = max(1, (os.cpu_count() or 1) // self.threads)
            return [_Place(CPU, f"cpu-{i}") for i in range(many)]
        if self.device == MPS and _has_mps():
            return [_Place(MPS, MPS)]
        there = ", ".join([AUTO, *(one.device for one in self.hardware())])
        raise BadInput(f"there is no device {self.device!r} here: choose {there}")


def _numbered() -> dict[str, Card]:
    """The visible cards as `cuda:N`."""
    return {f"{CUDA}:{n}": card for n, card in enumerate(cards.usable())}


def _on_cards(wanted: dict[str, Card], *, asked: str) -> list[_Place]:
    """Cards in the order to try them; in a process that has taken one, this one alone."""
    if _taken is not None:
        wanted = {name: card for name, card in wanted.items() if _is_taken(card)}
        if not wanted:
            raise BadInput(
                f"this process computes on {_taken.name} ({_taken.place}) already and cannot "
                f"change to {asked}: start another"
            )
    in_order = sorted(wanted.items(), key=lambda pair: pair[1].nearly_full)
    return [_Place(name, card.place, card) for name, card in in_order]


def _is_taken(card: Card) -> bool:
    return _taken is not None and card.uuid == _taken.uuid


def _first_free(locks: list[tuple[_Place, FileLock]]) -> tuple[_Place, FileLock]:
    """Acquire the first lock that can be had, waiting for as long as it takes."""
    from filelock import Timeout

    while True:
        for place, lock in locks:
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return place, lock
        time.sleep(_PAUSE)


def _entered(place: _Place) -> str:
    """Torch's name of a place whose lock is held; from a card's first use the process stays."""
    global _taken
    if place.card is None:
        return place.device
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        cards.show_only(place.card)
    name = _torchs_name(place.card)
    _taken = place.card
    return name


def _use_threads(threads: int) -> None:
    """Import torch, which has to wait until a card is chosen, and let it use so many threads."""
    import torch

    torch.set_num_threads(threads)


def _torchs_name(card: Card) -> str:
    """`cuda:N` as torch counts the cards that this process sees: 0, unless CUDA was open before.

    Raises RetrainError if torch does not see the card whose lock is held.
    """
    import torch

    torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    count = torch.cuda.device_count()
    if card.instance is not None and count == 1:
        return f"{CUDA}:0"  # of a MIG instance torch may tell the id of its card
    for index in range(count):
        if card.uuid.endswith(str(torch.cuda.get_device_properties(index).uuid)):
            return f"{CUDA}:{index}"
    raise RetrainError(
        f"{card.name} ({card.place}) is free, but this process has opened CUDA without it: start "
        "another process, or give `--device cpu`"
    )


def _of_card(name: str, card: Card) -> Hardware:
    dtypes = ("fp32", "bf16") if card.bf16 else ("fp32",)
    return Hardware(name, card.name, card.free, card.total, dtypes)


def _of_machine(name: str) -> Hardware:
    """The CPU, or Apple's device, which shares its memory."""
    import psutil

    model, flags = _processor()
    dtypes = ("fp32", "bf16") if flags & {"avx512_bf16", "amx_bf16", "bf16"} else ("fp32",)
    memory = psutil.virtual_memory()
    return Hardware(name, model, memory.available, memory.total, dtypes)


def _processor() -> tuple[str, set[str]]:
    """Name and instruction sets of the processor; the latter are known on Linux alone."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    said = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    flags = said.get("flags") or said.get("Features") or ""
    return said.get("model name") or platform.processor() or platform.machine(), set(flags.split())


def _has_mps() -> bool:
    if sys.platform != "darwin":
        return False
    import torch

    return bool(torch.backends.mps.is_available())
