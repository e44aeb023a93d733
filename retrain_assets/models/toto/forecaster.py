"""Toto as a forecaster: windows of bars in, exact distributions of closes out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
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
from retrain_assets.models.memory import WINDOW, fitting, with_less
from retrain_assets.models.toto.checkpoint import Network
from retrain_assets.models.toto.reading import Points, read
from retrain_assets.models.toto.series import VARIATES, Series, in_units, variates
from retrain_assets.models.toto.settings import TotoSettings
from retrain_assets.models.toto.toto1 import Toto1Network
from retrain_assets.models.toto.toto2 import Toto2Network

PATHS = 256
"""Paths that Toto 1 draws beyond its patch; upstream advises 128 or more."""
AT_ONCE = 16
"""Windows read at once on an accelerator."""

Past = tuple[bool, int]
"""What is read of a window: whether its companions are, and how many bars."""


class TotoForecaster:
    """Forecasts closes in closed form; implements `Forecaster`.

    paths: drawn by Toto 1 for steps beyond its patch. windows_at_once: read together; None takes
        one on the CPU, so that a forecast has the same bits in any company, else 16. It halves
        where memory does not suffice.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        name: str,
        paths: int = PATHS,
        windows_at_once: int | None = None,
    ) -> None:
        for option, value in (("paths", paths), ("windows_at_once", windows_at_once)):
            if value is not None and (type(value) is not int or value < 1):
                raise BadInput(f"{option} is {value!r}: give a whole number of at least 1")
        network_of(model.module)
        self.name, self.model, self.paths = name, model, paths
        usual = 1 if model.device.type == "cpu" else AT_ONCE
        self.windows_at_once = windows_at_once or usual

    def traits(self, settings: Settings) -> SettingTraits:
        """Temperatures are served by one reading; series and bars read say what it costs."""
        one = TotoSettings.parse(settings)
        longest, patch = self.model.limits.max_context, self.model.limits.patch
        length = one.context_length
        if length is not None and (length % patch or length > longest):
            raise BadInput(
                f"context_length is {length}: give a multiple of the base's patch of {patch} "
                f"bars, at most {longest // patch * patch}"
            )
        read_of = (one.use_past_values, length)
        series = len(VARIATES) if one.use_past_values else 1
        cost = series * ((length or longest) // patch)
        return SettingTraits(same=(one.temperature, *read_of), shared=read_of, cost=cost)

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """Mean, median and quantiles of the predictive distributions.

        A window longer than a setting's context_length, or than a whole number of patches, is
        cut at its old end. Raises BadInput for settings out of range, for windows of different
        shapes, for a bar that is not a number, and for a context that is shorter than a patch
        or does not fit beside the steps; OutOfMemory when not one window fits into memory.
        """
        started = time.perf_counter()
        parsed = [TotoSettings.parse(one) for one in settings]
        context, steps = common_shape(windows, self.model)
        shape = (len(settings), len(windows))
        mean, median = (np.empty((*shape, steps)) for _ in range(2))
        quantiles = np.empty((*shape, len(QUANTILE_LEVELS), steps))
        pasts = [self._past(one, context) for one in parsed]
        for past in dict.fromkeys(pasts):
            series = self._series(windows, past)
            members = [i for i, own in enumerate(pasts) if own == past]
            taus = dict.fromkeys(parsed[i].temperature for i in members)
            start = 0
            while start < len(windows):
                rows, found = self._read_some(start, series.values, windows, taus, steps, seed)
                start = rows.stop
                for i in members:
                    points = found[parsed[i].temperature]
                    mean[i, rows] = points.mean
                    median[i, rows], quantiles[i, rows] = points.median, points.quantiles
            for part in (mean, median, quantiles):
                unit, centre = (
                    np.expand_dims(x, tuple(range(1, part.ndim - 1)))
                    for x in (series.scale, series.mean)
                )
                part[members] = part[members] * unit + centre
        return Forecast(
            origins=pd.DatetimeIndex([window.origin for window in windows]),
            mean=mean,
            median=median,
            quantiles=quantiles,
            levels=QUANTILE_LEVELS,
            seconds=time.perf_counter() - started,
            computation=self._computation(steps),
        )

    def _past(self, settings: TotoSettings, context: int) -> Past:
        """What a setting reads of windows of `context` bars: whole patches, from the new end."""
        patch = self.model.limits.patch
        bars = min(context, settings.context_length or context)
        if bars < patch:
            raise BadInput(
                f"a context of {bars} bars is shorter than one patch of base "
                f"{self.model.base!r}: give at least {patch}"
            )
        return settings.use_past_values, bars // patch * patch

    def _series(self, windows: Sequence[Window], past: Past) -> Series:
        companions, length = past
        count = len(VARIATES) if companions else 1
        raw = [variates(window.bars.iloc[-length:])[:, :count] for window in windows]
        return in_units(np.stack(raw), context=length)

    def _read_some(
        self,
        start: int,
        values: np.ndarray,
        windows: Sequence[Window],
        taus: Iterable[float],
        steps: int,
        seed: int,
    ) -> tuple[slice, dict[float, Points]]:
        """As many windows from `start` on as are read at once; fewer where memory is short."""

        def some(at_once: int) -> dict[float, Points]:
            rows = slice(start, start + at_once)
            return self._read(values[rows], windows[rows], tuple(taus), steps, seed)

        with fitting(WINDOW):
            found, self.windows_at_once = with_less(some, self.windows_at_once)
        return slice(start, start + self.windows_at_once), found

    @torch.inference_mode()
    def _read(
        self,
        values: np.ndarray,
        windows: Sequence[Window],
        temperatures: tuple[float, ...],
        steps: int,
        seed: int,
    ) -> dict[float, Points]:
        """Closes of some windows (window, variate, position) by temperature, in network units."""
        with evaluating(self.model.module):
            reading = read(
                network_of(self.model.module),
                torch.from_numpy(values).to(self.model.device),
                steps=steps,
                origins=[window.origin.value for window in windows],
                paths=self.paths,
                seed=seed,
            )
            return {tau: reading.under(tau) for tau in temperatures}

    def _computation(self, steps: int) -> dict[str, float | int | str]:
        network = network_of(self.model.module)
        drawn = isinstance(network, Toto1Network) and steps > network.config.patch_size
        return {
            "device": str(self.model.device),
            "windows_at_once": self.windows_at_once,
            "paths": self.paths if drawn else 0,
        }


def network_of(module: nn.Module) -> Network:
    """The network itself, with an adapter's layers in place, from a plain or a PEFT module."""
    inner = unwrapped(module)
    if not isinstance(inner, Toto1Network | Toto2Network):
        raise BadInput(f"expected a Toto network, not {type(inner).__name__}")
    return inner
