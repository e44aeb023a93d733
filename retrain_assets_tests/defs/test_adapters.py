"""The training assets, where the memory of the device is short."""

from __future__ import annotations

import itertools
from typing import Any

import dagster as dg
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from retrain_assets.definitions import RETRAIN_STOCK, build_definitions
from retrain_assets.defs.failures import failure_reason
from retrain_assets.defs.partitions import partition_key, register_stocks
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.kronos.training import KronosTrainingTask
from retrain_assets_tests.installed import MONTH, made_bars

ADAPTER = ["market_bars", "baseline_metrics", "kronos_adapter"]


def trained(home: Home) -> dg.ExecuteInProcessResult:
    """A run that trains an adapter on 700 bars, for which the plan's context is 352."""
    BarStore(home.market).write("AAA", made_bars(706, seed=0), source="made")
    with dg.DagsterInstance.get() as instance:
        register_stocks(instance, ["AAA"])
        job = build_definitions(home, device="cpu").resolve_job_def(RETRAIN_STOCK)
        return job.execute_in_process(
            instance=instance,
            partition_key=partition_key(MONTH, "AAA"),
            asset_selection=[dg.AssetKey(name) for name in ADAPTER],
            run_config={"ops": {"kronos_adapter": {"config": {"base": "tiny", "max_steps": 2}}}},
            raise_on_error=False,
        )


def device_that_takes(bars: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device whose memory suffices for contexts of so many bars; lists what was tried on it."""
    tried: list[int] = []
    original = KronosTrainingTask.loss

    def loss(self: KronosTrainingTask, module: Any, rows: NDArray[np.int64]) -> Any:
        context = self.train.s1.shape[1] - self.train.horizon
        tried.extend([] if context in tried else [context])
        if context > bars:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, module, rows)

    monkeypatch.setattr(KronosTrainingTask, "loss", loss)
    return tried


def test_a_context_that_does_not_fit_is_halved_and_said(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = device_that_takes(200, monkeypatch)
    result = trained(home)
    assert result.success
    longest, half = tried
    assert half == longest // 2
    record = result.output_for_node("kronos_adapter")
    assert record["plan"]["context"] == record["split"]["context"] == half
    told = f"-> {half}: a longer one did not fit into memory"
    assert record["plan"]["notes"][-1].endswith(told)
    assert record == read_json(home.assets / "kronos_adapter" / MONTH / "AAA.json")
    (shown,) = [
        event.step_materialization_data.materialization.metadata["notes"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("kronos_adapter")
    ]
    assert record["plan"]["notes"][-1] in shown


def test_a_stock_of_which_not_one_window_fits_fails_with_advice(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = device_that_takes(0, monkeypatch)
    result = trained(home)
    assert tried[-1] == 128
    assert len(tried) == 3
    assert all(b == max(a // 2, 128) for a, b in itertools.pairwise(tried))
    (failure,) = result.get_step_failure_events()
    reason = failure_reason(failure.step_failure_data)
    assert "one window does not fit into the device's memory (CUDA out of memory." in reason
    assert "choose a smaller base, or shorten --context-length or --prediction-length" in reason
