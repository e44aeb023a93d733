"""Kronos as a forecaster: windows of bars in, sampled paths of closes out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
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
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.preprocess import CLOSE, features, time_features
from retrain_assets.models.kronos.sampler import ChunkShape, ContextBatch, sample_closes
from retrain_assets.models.kronos.settings import Compat, KronosSettings, RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer
from retrain_assets.training.windows import normalise_windows


@dataclass(frozen=True)
class SampledPaths:
    """Every path of closes of a call, in the series' own currency.

    closes: (window, row, step). shares: for each setting, its rows.
    """

    closes: NDArray[np.float64]
    shares: tuple[slice, ...]

    def of(self, setting: int) -> NDArray[np.float64]:
        """Paths of one setting, by its place in the call: (window, path, step)."""
        return self.closes[:, self.shares[setting]]


class KronosForecaster:
    """Forecasts closes by sampling paths; implements `Forecaster`.

    row_budget: rows decoded at once; None chooses by device. On the CPU it is part of what
        fixes the result to the bit.
    compat: "upstream" ignores top_p where a top_k is set, as upstream's sampler does.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str,
        row_budget: int | None = None,
        compat: Compat = None,
    ) -> None:
        if not isinstance(model.companion, KronosTokenizer):
            raise BadInput(f"{model.family}/{model.base} was loaded without its tokenizer")
        if compat not in (None, "upstream"):
            raise BadInput(f"compat is {compat!r}: use 'upstream', or leave it out")
        if row_budget is not None and row_budget < 1:
            raise BadInput(f"row_budget must be at least 1, not {row_budget}")
        self.name = name
        self.model, self.tokenizer = model, model.companion
        self.row_budget, self.compat = row_budget, compat

    def traits(self, settings: Settings) -> SettingTraits:
        """Paths are decided by the filters that act; num_samples says how many are taken."""
        one = KronosSettings.parse(settings)
        shared = one.filters(self.compat)
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
        )

    def paths(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> SampledPaths:
        """All paths behind a forecast; arguments and errors as `forecast`."""
        table = RowTable.build([KronosSettings.parse(one) for one in settings], self.compat)
        batch, mean, scale = self._prepare(windows)
        shape = ChunkShape.choose(self.model.device, budget=self.row_budget, needed=len(table))
        network = network_of(self.model.module)
        with evaluating(self.model.module, self.tokenizer):
            closes = sample_closes(network, self.tokenizer, batch, table, seed=seed, shape=shape)
        return SampledPaths(closes * scale[:, None, None] + mean[:, None, None], table.shares)

    def _prepare(
        self, windows: Sequence[Window]
    ) -> tuple[ContextBatch, NDArray[np.float64], NDArray[np.float64]]:
        """Network input, and mean and scale of each context's closes, (window,)."""
        if not windows:
            raise BadInput("no windows to forecast: give at least one")
        shapes = {(len(window.bars), len(window.future_sessions)) for window in windows}
        if len(shapes) > 1:
            raise BadInput(
                f"windows of one call must have the same context and steps, not {sorted(shapes)}"
            )
        context, steps = shapes.pop()
        self._check_length(context, steps)
        raw = np.stack([features(window.bars) for window in windows])
        normalised = normalise_windows(raw, context=context)
        sessions = [np.concatenate((w.bars["session"], w.future_sessions)) for w in windows]
        batch = ContextBatch(
            values=normalised.values.astype(np.float32),
            stamps=np.stack([time_features(pd.DatetimeIndex(labels)) for labels in sessions]),
            origins=np.array([window.origin.value for window in windows], dtype=np.int64),
        )
        return batch, normalised.mean[:, CLOSE], normalised.scale[:, CLOSE]

    def _check_length(self, context: int, steps: int) -> None:
        limit = self.model.limits.max_context
        if context < 1 or steps < 1:
            raise BadInput(f"a window needs context and steps, not {context} and {steps} bars")
        if context + steps > limit:
            raise BadInput(
                f"context {context} + {steps} steps exceed the {limit} bars that base "
                f"{self.model.base!r} takes; use a context of at most "
                f"max_context - steps = {limit - steps} bars"
            )


def network_of(module: nn.Module) -> KronosNetwork:
    """The network itself, with an adapter's layers in place, from a plain or a PEFT module."""
    unwrap: Callable[[], nn.Module] | None = getattr(module, "get_base_model", None)
    inner = unwrap() if unwrap is not None else module
    if not isinstance(inner, KronosNetwork):
        raise BadInput(f"expected a Kronos network, not {type(inner).__name__}")
    return inner


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode, so that no dropout acts; training mode returns after."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
