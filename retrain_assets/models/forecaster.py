"""What a model family is: the protocol it implements, and the registry that finds it.

A family is one folder under `retrain_assets/models/` of the family's name. Its `__init__.py`
holds an object named `FAMILY` that implements `ModelFamily`, and its `bases.py` one named `TABLE`,
the `BaseTable` from which bases are found and completed in a shell. The registry discovers the
folders, so a new family needs no edit elsewhere. Importing either must be cheap: torch is imported
inside the methods.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput

if TYPE_CHECKING:
    import torch

    from retrain_assets.training.trainer import Progress

Settings = Mapping[str, float | int | bool | None]
"""Inference parameters of one forecast by name, for instance `{"temperature": 0.6}`."""

SearchSpace = Mapping[str, Sequence[float | int | bool | None]]
"""Values to try by the name of the setting; None turns a setting off."""


def written(value: float | int | bool | None) -> str:
    """A setting's value as it is given on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return "off" if value is None else str(value)


@dataclass(frozen=True)
class ModelLimits:
    """How long a window a base model can take.

    max_context: most bars a window may hold, context and horizon together.
    patch: the context must be a multiple of this many bars (Kronos 1, Toto 2 32, Toto 1 64).
    """

    max_context: int
    patch: int = 1


@dataclass(frozen=True)
class Window:
    """The input of one forecast: nothing in it is later than the origin.

    bars: the context, ascending, columns session, open, high, low, close, volume; its last
        row is the origin.
    future_sessions: session labels of the bars to forecast, shape (step,).
    """

    bars: pd.DataFrame
    future_sessions: pd.DatetimeIndex

    @property
    def origin(self) -> pd.Timestamp:
        """Session of the last bar the forecast may use."""
        return pd.Timestamp(self.bars["session"].iloc[-1])

    @property
    def origin_close(self) -> float:
        """Close at the origin, in the series' own currency."""
        return float(self.bars["close"].iloc[-1])


@dataclass(frozen=True)
class Forecast:
    """Close prices forecast for many windows under many settings.

    Axes: setting, window, step (and level for quantiles), in the order of the arguments of
    `Forecaster.forecast`. Prices are in the series' own currency.

    origins: origin of each window, shape (window,).
    mean: mean of the predictive distribution or of the sampled paths, (setting, window, step).
    median: its median, (setting, window, step).
    quantiles: (setting, window, level, step), rows in the order of `levels`.
    levels: the quantile levels, ascending, in (0, 1).
    seconds: wall time of the whole call.
    computation: how it was computed, in the family's own words, to be stored with results.
    """

    origins: pd.DatetimeIndex
    mean: NDArray[np.float64]
    median: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    levels: tuple[float, ...]
    seconds: float
    computation: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class SettingTraits:
    """What a setting comes down to, so that a search computes nothing twice.

    same: equal for settings that give the same forecast.
    shared: equal for settings that are served by one computation, the most expensive of them
        (Kronos: the paths of fewer samples are the first paths of more).
    cost: what one forecast costs, in a unit of the family's own (Kronos: paths).
    """

    same: tuple[float | int | bool | str | None, ...]
    shared: tuple[float | int | bool | str | None, ...]
    cost: int


QUANTILE_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Levels every family reports: the median and the bounds of the 50 % and 80 % intervals."""


class Forecaster(Protocol):
    """Anything that forecasts closes: naive, a base model, a base model with an adapter."""

    name: str

    def traits(self, settings: Settings) -> SettingTraits:
        """What these settings come down to. Raises BadInput naming a field out of range."""
        ...

    def forecast(
        self, windows: Sequence[Window], settings: Sequence[Settings], *, seed: int
    ) -> Forecast:
        """Forecast every window under every setting.

        All windows have the same context length and the same number of steps. A forecast
        depends on its own window, its setting and the seed alone: not on what else is in
        the call. Raises BadInput for a setting that is not the model's or out of range.
        """
        ...


@dataclass
class LoadedModel:
    """A base model in memory, with or without an adapter on it.

    family, base: names in the registry (`kronos`, `nano`).
    module: the network that adapters attach to and training differentiates.
    companion: whatever else a forecast needs and training leaves frozen (Kronos' tokenizer).
    limits: window limits of this base.
    fingerprint: SHA-256 over names, shapes and values of all base weights (never the adapter's).
    device: where the weights are.
    adapter: digest of the adapter on it, None for the untouched base.
    base_weights: the form of the weights that an adapter adds to, where a family has more than
        the published one (Toto 2: `folded`, its multipliers are part of them).
    """

    family: str
    base: str
    module: torch.nn.Module
    companion: torch.nn.Module | None
    limits: ModelLimits
    fingerprint: str
    device: torch.device
    adapter: str | None = None
    base_weights: str = "published"


@dataclass(frozen=True)
class WindowRange:
    """Which windows of a series to use, by the position of their first target bar.

    A window with first target `i` has its context in bars [i - context, i) and its targets
    in [i, i + horizon). `first <= i`, `i + horizon <= stop`, every `stride`-th. With
    `cut_targets`, `i < stop` is enough: targets from `stop` on are left out of the window.
    """

    first: int
    stop: int
    context: int
    horizon: int
    stride: int = 1
    cut_targets: bool = False

    def targets(self) -> range:
        """Positions of the windows' first target bars, ascending."""
        stop = self.stop if self.cut_targets else self.stop - self.horizon + 1
        return range(self.first, stop, self.stride)


class TrainingTask(Protocol):
    """One series as batches and a loss; the trainer knows no more about a family than this."""

    train_windows: int
    """Number of training windows; the trainer draws rows from range(train_windows)."""

    def loss(self, module: torch.nn.Module, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Differentiable mean loss over these training windows.

        Returns scalars by name: "loss" (what is minimised) and its parts for the log.
        """
        ...

    def validation(self, module: torch.nn.Module) -> dict[str, float]:
        """Causal, noise-free losses over the validation windows, the same names as `loss`."""
        ...


@dataclass(frozen=True)
class ExportLayout:
    """Where an export puts one stock's adapter and what is told of its training.

    Paths below the export's root, in which `{symbol}` stands for the stock.
    model: folder of the adapter in PEFT's layout. config: what it was trained with, JSON.
    metrics: its losses and errors, JSON. log: its epochs, a line each.
    """

    model: str
    config: str
    metrics: str
    log: str

    def of(self, symbol: str) -> ExportLayout:
        """The paths of one stock."""
        return ExportLayout(**{n: path.format(symbol=symbol) for n, path in vars(self).items()})


def default_layout(name: str) -> ExportLayout:
    """The layout of a family whose folders have no names of their own."""
    folder = f"{name}training/stock_models/{{symbol}}"
    return ExportLayout(
        model=f"{folder}/{{symbol}}_model",
        config=f"{folder}/training_config.json",
        metrics=f"{folder}/training_metrics.json",
        log=f"{folder}/training_output.txt",
    )


class ModelFamily(Protocol):
    """A kind of pretrained model that can be loaded, adapted and asked for forecasts."""

    name: str
    title: str
    default_base: str
    options: tuple[str, ...]
    """Names of the ways to compute that `forecaster` can be told."""
    export_layout: ExportLayout
    """Where an export puts its adapters; `default_layout` unless scripts know other folders."""

    @property
    def default_settings(self) -> Settings:
        """The settings its authors published for forecasting."""
        ...

    @property
    def search_space(self) -> SearchSpace:
        """The values that a search tries by default: the retraining guide's grid."""
        ...

    def published_base(self, device: str) -> str:
        """The published base that suits a device such as `cpu`, `cuda:0` or `mps`."""
        ...

    def lora_targets(self, model: LoadedModel) -> tuple[str, ...]:
        """Names of the layers that adapters of this model wrap."""
        ...

    def check_settings(self, settings: Settings) -> None:
        """Raise BadInput naming a field that is unknown or out of range for every base."""
        ...

    def limits(self, base: str, *, checkpoints: Path) -> ModelLimits:
        """Window limits of a base without loading its weights. Raises BadInput if unknown."""
        ...

    def base_digest(self, base: str, *, checkpoints: Path) -> str:
        """What tells a base from any other without loading it: a digest of its files.

        Raises BadInput if it is unknown, CheckpointError if its files are gone.
        """
        ...

    def load(self, base: str, *, checkpoints: Path, device: str) -> LoadedModel:
        """Load a base strictly, in evaluation mode, all weights frozen.

        base: a name of the family's table, or a local folder listed in
        `checkpoints/bases.yaml`. Raises CheckpointError naming the file or key at fault.
        """
        ...

    def training_task(
        self,
        model: LoadedModel,
        bars: pd.DataFrame,
        *,
        train: WindowRange,
        validation: WindowRange,
        loss: str,
    ) -> TrainingTask:
        """Windows of `bars` as batches and the named loss (huber, heteroscedastic, mse)."""
        ...

    def forecaster(
        self, model: LoadedModel, *, name: str, options: Mapping[str, Any] | None = None
    ) -> Forecaster:
        """The model as a forecaster called `name` in tables.

        options: ways to compute, by name; BadInput lists the known ones if one is not.
        """
        ...

    def pretrain(
        self,
        size: str,
        bars: Mapping[str, pd.DataFrame],
        *,
        until: pd.Timestamp,
        checkpoints: Path,
        report: Callable[[str, Progress], None],
    ) -> Mapping[str, Any]:
        """Train a small base of a named size from nothing on bars up to `until`, for offline use.

        bars: by symbol. report: called with the part's name as it trains. The base is written to
        `checkpoints` in the published format with a card; returns the card's facts. Raises
        BadInput for an unknown size or a history that is too short.
        """
        ...


PUBLISHED = "published"
"""Asked for as a base: the published one that suits the device."""


def base_for(own: ModelFamily, asked: str | None, *, device: str) -> str:
    """The base that is meant: by its name, by PUBLISHED, or the bundled one where none is asked."""
    if asked == PUBLISHED:
        return own.published_base(device)
    return asked or own.default_base


@cache
def families() -> dict[str, ModelFamily]:
    """Every model family found under `retrain_assets.models`, by name, in alphabetical order."""
    import retrain_assets.models as package

    found: dict[str, ModelFamily] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
        if module.ispkg:
            family: Any = importlib.import_module(f"{package.__name__}.{module.name}").FAMILY
            found[family.name] = family
    return found


def family(name: str) -> ModelFamily:
    """The family called `name`; raises BadInput listing the known ones."""
    if name not in families():
        raise BadInput(f"no model family {name!r}: choose one of {', '.join(families())}")
    return families()[name]
