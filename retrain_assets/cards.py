"""Which CUDA cards there are and which of them a process may see, asked of the driver.

Never of torch: a process that asks torch has opened CUDA, and then it is too late to choose a
card. Cards are counted as `nvidia-smi` lists them. A card that is cut into MIG instances is
these instances, since a process can use one of them alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import RetrainError

if TYPE_CHECKING:
    from types import ModuleType

VISIBLE = "CUDA_VISIBLE_DEVICES"
_BEFORE = "RETRAIN_CARDS_BEFORE"
"""What `VISIBLE` was before a process took a card: what it starts may take another."""
_UNSET = "-"
_NONE = ("", "-1")
_BF16_SINCE = (8, 0)
_NEARLY_FULL = 0.1


@dataclass(frozen=True)
class Card:
    """A card, or a MIG instance of one, as the driver describes it.

    index: of the card in the order of the PCI bus. instance: of MIG, None for a whole card.
    free, total: bytes of memory. bf16: whether it multiplies bfloat16 natively.
    """

    index: int
    instance: int | None
    uuid: str
    name: str
    free: int
    total: int
    bf16: bool

    @property
    def place(self) -> str:
        """A name for its lock file: the same for every process, whatever each may see."""
        part = "" if self.instance is None else f"-mig-{self.instance}"
        return f"cuda-{self.index}{part}"

    @property
    def nearly_full(self) -> bool:
        """Whether others have taken nearly all of its memory."""
        return self.free < _NEARLY_FULL * self.total


def usable() -> list[Card]:
    """The cards this installation can compute on, of those that the environment leaves it.

    None where torch was built for the CPU alone, or where there is no driver. Raises RetrainError
    if there is a driver that does not answer.
    """
    shown = given()
    hidden = shown is not None and shown.split(",")[0].strip() in _NONE
    return [] if hidden or not _torch_has_cuda() else visible(installed(), shown)


def installed() -> list[Card]:
    """All cards of the machine; see `usable` for errors."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise _unanswered(error) from error
    try:
        count = pynvml.nvmlDeviceGetCount()
        return [card for index in range(count) for card in _parts(pynvml, index)]
    except pynvml.NVMLError as error:
        raise _unanswered(error) from error
    finally:
        pynvml.nvmlShutdown()


def visible(cards: list[Card], given: str | None) -> list[Card]:
    """Those of the cards that a value of CUDA_VISIBLE_DEVICES names, in its order.

    An entry is an index, or the beginning of the UUID of a card or of a MIG instance. As CUDA has
    it, an entry that names nothing hides whatever comes after it.
    """
    if given is None:
        return cards
    chosen: list[Card] = []
    for entry in (part.strip() for part in given.split(",")):
        if entry.isdecimal():
            found = [card for card in cards if card.index == int(entry)]
        else:
            found = [card for card in cards if entry and card.uuid.startswith(entry)][:1]
        if not found:
            break
        chosen += [card for card in found if card not in chosen]
    return chosen


def given() -> str | None:
    """CUDA_VISIBLE_DEVICES as whoever started the first of our processes set it."""
    before = os.environ.get(_BEFORE)
    if before is None:
        return os.environ.get(VISIBLE)
    return None if before == _UNSET else before


def show_only(card: Card) -> None:
    """Let this process see one card; in vain once it has opened CUDA."""
    before = given()
    os.environ[_BEFORE] = _UNSET if before is None else before
    os.environ[VISIBLE] = card.uuid


def _parts(nvml: ModuleType, index: int) -> Iterator[Card]:
    """A card, or its MIG instances."""
    whole = nvml.nvmlDeviceGetHandleByIndex(index)
    bf16 = tuple(nvml.nvmlDeviceGetCudaComputeCapability(whole)) >= _BF16_SINCE
    parts: list[tuple[int | None, Any]] = [*_instances(nvml, whole)]
    for instance, handle in parts or [(None, whole)]:
        free, total = _memory(nvml, handle)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        yield Card(index, instance, uuid, name, free, total, bf16)


def _instances(nvml: ModuleType, whole: Any) -> Iterator[tuple[int, Any]]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(whole)
    except nvml.NVMLError_NotSupported:
        return
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return
    for instance in range(nvml.nvmlDeviceGetMaxMigDeviceCount(whole)):
        with contextlib.suppress(nvml.NVMLError_NotFound):
            yield instance, nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, instance)


def _memory(nvml: ModuleType, handle: Any) -> tuple[int, int]:
    """Bytes free and in all; those of the machine for a card that has none of its own."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError_NotSupported:
        import psutil

        shared = psutil.virtual_memory()
        return shared.available, shared.total
    return memory.free, memory.total


def _torch_has_cuda() -> bool:
    """Whether torch was built for cards; its version says so without an import."""
    return not importlib.metadata.version("torch").endswith("+cpu")


def _unanswered(error: Exception) -> RetrainError:
    return RetrainError(
        f"NVIDIA's driver does not answer ({error}): see whether `nvidia-smi` works, or compute on "
        f"the CPU with {VISIBLE}=-1"
    )
