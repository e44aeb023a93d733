"""Memory that does not suffice: told from other errors, and halved until it does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from retrain_assets.errors import OutOfMemory
from retrain_assets.models.memory import fitting, is_out_of_memory, with_less
from retrain_assets_tests.models.kronos import test_training as kronos
from retrain_assets_tests.models.toto import test_training as toto
from retrain_assets_tests.models.toto.cases import forecaster
from retrain_assets_tests.tiny import random_walk, windows_of

SHORT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more lines")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (SHORT, True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_full_memory_is_told_from_other_errors(error: Exception, short: bool) -> None:
    assert is_out_of_memory(error) is short


def taking(most: int, error: Exception = SHORT) -> tuple[Callable[[int], int], list[int]]:
    """Something that can be computed for so many at once, and a list of how many were tried."""
    tried: list[int] = []

    def compute(at_once: int) -> int:
        tried.append(at_once)
        if at_once > most:
            raise error
        return 10 * at_once

    return compute, tried


def test_half_is_taken_until_it_fits() -> None:
    compute, tried = taking(3)
    assert with_less(compute, 13) == (20, 2)
    assert tried == [13, 7, 4, 2]


def test_the_error_goes_through_when_not_one_fits_and_when_it_is_another() -> None:
    compute, tried = taking(0)
    with pytest.raises(torch.OutOfMemoryError):
        with_less(compute, 4)
    assert tried == [4, 2, 1]
    compute, tried = taking(0, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        with_less(compute, 4)
    assert tried == [4]


def test_what_does_not_fit_is_told_in_a_line_with_what_to_do() -> None:
    with pytest.raises(OutOfMemory) as told, fitting("base large"):
        raise SHORT
    assert str(told.value) == (
        "base large does not fit into the device's memory (CUDA out of memory. Tried to allocate "
        "2 GiB): choose a smaller base, or shorten --context-length or --prediction-length"
    )


def fewer(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, rows: int, place: int) -> None:
    """Refuse calls of a function with more than so many rows in one of its arguments."""
    original = getattr(owner, name)

    def refusing(*arguments: Any, **named: Any) -> Any:
        if len(arguments[place]) > rows:
            raise SHORT
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, refusing)


def test_kronos_validates_fewer_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = kronos.model()
    loaded.module.eval()
    whole = kronos.task(loaded, "huber").validation(loaded.module)
    own = kronos.task(loaded, "huber")
    network = type(loaded.module.get_base_model())
    fewer(monkeypatch, network, "hidden", 5, 1)
    found = own.validation(loaded.module)
    for name, value in whole.items():
        assert math.isclose(found[name], value, rel_tol=1e-5), name
    fewer(monkeypatch, network, "hidden", 0, 1)
    with pytest.raises(torch.OutOfMemoryError):
        own.validation(loaded.module)


def test_toto_validates_fewer_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = toto.adapted(2)
    loaded.module.eval()
    own = toto.task(loaded)
    whole = own.validation(loaded.module)
    original = toto.module.losses

    def refusing(network: Any, batch: Any, **named: Any) -> Any:
        if len(batch.values) > 2:
            raise SHORT
        return original(network, batch, **named)

    monkeypatch.setattr(toto.module, "losses", refusing)
    found = own.validation(loaded.module)
    for name, value in whole.items():
        assert math.isclose(found[name], value, rel_tol=1e-5), name


def test_toto_forecasts_fewer_windows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = windows_of(random_walk(160), context=64, steps=5, count=5)
    setting = [dict(toto.FAMILY.default_settings)]
    whole = forecaster(2, windows_at_once=5).forecast(windows, setting, seed=0)
    own = forecaster(2, windows_at_once=5)
    fewer(monkeypatch, type(own), "_read", 2, 1)
    found = own.forecast(windows, setting, seed=0)
    assert own.windows_at_once == 2
    assert found.computation["windows_at_once"] == 2
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-5)
    fewer(monkeypatch, type(own), "_read", 0, 1)
    with pytest.raises(OutOfMemory, match="one window does not fit"):
        own.forecast(windows, setting, seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_card_that_is_full_halves_what_is_computed_at_once() -> None:
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**28 / total))
    try:

        def compute(at_once: int) -> int:
            return torch.zeros(at_once * 2**22, device="cuda").numel()  # 16 MiB each

        found, at_once = with_less(compute, 64)
        assert at_once in (16, 8)
        assert found == at_once * 2**22
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
