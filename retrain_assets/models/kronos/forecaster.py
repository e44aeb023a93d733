"""Kronos as a forecaster: windows of bars in, sampled paths of closes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import (
    QUANTILE_LEVELS,
    Forecast,
    LoadedModel,
    Settings,
    SettingTraits,
    Window,
)
from retrain_assets.models.inputs import common_shape, evaluating, unwrapped
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.preprocess import CLOSE, features, time_features
from retrain_assets.models.kronos.sampler import ContextBatch, Sampler
from retrain_assets.models.kronos.settings import Compat, KronosSettings, RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.training.windows import normalise_windows

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class SampledPaths:
    """Every path of closes of a call, in the series' own currency.

    closes: (window, row, step). shares: for each setting, its rows.
    computation: precision, device, most rows decoded at once, bars drawn, and how many of them
        were computed, since paths that have drawn the same so far are computed once.
    """

    closes: NDArray[np.float64]
    shares: tuple[slice, ...]
    computation: dict[str, float | int | str]

    def of(self, setting: int) -> NDArray[np.float64]:
        """Paths of one setting, by its place in the call: (window, path, step)."""
        return self.closes[:, self.shares[setting]]


class KronosForecaster:
    """Forecasts closes by sampling paths; implements `Forecaster`.

    row_budget: most rows decoded at once; None chooses by the device's free memory. It changes
        nothing on the CPU; elsewhere products of another size may round otherwise.
    compat: "upstream" ignores top_p where a top_k is set, as upstream's sampler does.
    precision: of the products while decoding, fp32 or bf16. With bf16 some tokens differ.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str,
        row_budget: int | None = None,
        compat: Compat = None,
        precision: str = "fp32",
    ) -> None:
        if not isinstance(model.companion, KronosTokenizer):
            raise BadInput(f"{model.family}/{model.base} was loaded without its tokenizer")
        if compat not in (None, "upstream"):
            raise BadInput(f"compat is {compat!r}: use 'upstream', or leave it out")
        if row_budget is not None and row_budget < 1:
            raise BadInput(f"row_budget must be at least 1, not {row_budget}")
        if precision not in PRECISIONS:
            raise BadInput(f"precision is {precision!r}: use one of {', '.join(PRECISIONS)}")
        self.name = name
        self.model, self.tokenizer = model, model.companion
        self.row_budget, self.compat, self.precision = row_budget, compat, precision
        self._kept: tuple[list[tuple[int, int]], Sampler] | None = None

    def traits(self, settings: Settings) -> SettingTraits:
        """Paths are decided by the filters that act; num_samples says how many are taken."""
        one = KronosSettings.parse(settings)
        shared = one.filters(self.compat, self._vocabulary)
        return SettingTraits(same=(*shared, one.num_samples), shared=shared, cost=one.num_samples)

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """Mean, median and quantiles (linear between paths) of the sampled closes.

        Raises BadInput for settings out of range, for windows of different shapes, for a bar
        that is not a number, and for a context that does not fit beside the steps.
        """
        started = time.perf_counter()
        paths = self.paths(windows, settings, seed=seed)
        each = [paths.of(i) for i in range(len(settings))]  # (window, path, step)
        quantiles = [np.quantile(one, QUANTILE_LEVELS, axis=1) for one in each]
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=np.stack([one.mean(axis=1) for one in each]),
            median=np.stack([np.median(one, axis=1) for one in each]),
            quantiles=np.stack([levels.transpose(1, 0, 2) for levels in quantiles]),
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - started,
            computation=paths.computation,
        )

    def paths(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> SampledPaths:
        """All paths behind a forecast; arguments and errors as `forecast`."""
        parsed = [KronosSettings.parse(one) for one in settings]
        table = RowTable.build(parsed, self.compat, self._vocabulary)
        batch, mean, scale = self._prepare(windows)
        with evaluating(self.model.module, self.tokenizer):
            sampled = self._sampler().sample(batch, table, seed=seed)
        return SampledPaths(
            sampled.closes * scale[:, None, None] + mean[:, None, None],
            table.shares,
            {
                "device": str(self.model.device),
                "precision": self.precision,
                "rows": sampled.rows,
                "bars_drawn": sampled.closes.size,
                "bars_computed": sampled.computed,
            },
        )

    @property
    def _vocabulary(self) -> int:
        """Tokens of the larger of the two vocabularies."""
        config = network_of(self.model.module).config
        return int(2 ** max(config.s1_bits, config.s2_bits))

    def _sampler(self) -> Sampler:
        """The sampler of the weights as they are: it is kept until one of them changes."""
        modules = (self.model.module, self.tokenizer)
        weights = [(w.data_ptr(), w._version) for m in modules for w in m.parameters()]
        if self._kept is None or self._kept[0] != weights:
            network, dtype = network_of(self.model.module), PRECISIONS[self.precision]
            sampler = Sampler(network, self.tokenizer, rows=self.row_budget, dtype=dtype)
            self._kept = weights, sampler
        return self._kept[1]

    def _prepare(
        self, windows: Sequence[Window]
    ) -> tuple[ContextBatch, NDArray[np.float64], NDArray[np.float64]]:
        """Network input, and mean and scale of each context's closes, (window,)."""
        context, _ = common_shape(windows, self.model)
        raw = np.stack([features(window.bars) for window in windows])
        normalised = normalise_windows(raw, context=context)
        sessions = [np.concatenate((w.bars["session"], w.future_sessions)) for w in windows]
        batch = ContextBatch(
            values=normalised.values.astype(np.float32),
            stamps=np.stack([time_features(pd.DatetimeIndex(labels)) for labels in sessions]),
            origins=np.array([window.origin.value for window in windows], dtype=np.int64),
        )
        return batch, normalised.mean[:, CLOSE], normalised.scale[:, CLOSE]


def network_of(module: nn.Module) -> KronosNetwork:
    """The network itself, with an adapter's layers in place, from a plain or a PEFT module."""
    inner = unwrapped(module)
    if not isinstance(inner, KronosNetwork):
        raise BadInput(f"expected a Kronos network, not {type(inner).__name__}")
    return inner
