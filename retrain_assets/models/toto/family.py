"""Toto behind the protocol of a model family. Importing this is cheap: torch comes later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from retrain_assets.models.checkpoint_folders import source_digest
from retrain_assets.models.forecaster import (
    ExportLayout,
    Forecaster,
    LoadedModel,
    ModelLimits,
    SearchSpace,
    Settings,
    TrainingTask,
    WindowRange,
    default_layout,
)
from retrain_assets.models.inputs import checked_options
from retrain_assets.models.toto.bases import find_base

if TYPE_CHECKING:
    from retrain_assets.models.forecaster import ModelFamily
    from retrain_assets.training.trainer import Progress

TARGETS_1 = ("wQKV", "wO", "mlp.0", "mlp.2")
TARGETS_2 = ("in_proj", "out_proj", "fc1", "fc2")


class TotoFamily:
    """Toto bases of both generations, their adapters' targets, training tasks and forecasters."""

    name: str = "toto"
    title: str = "Toto"
    default_base: str = "nano"
    options: tuple[str, ...] = ("paths", "windows_at_once")
    export_layout: ExportLayout = default_layout("toto")

    @property
    def default_settings(self) -> Settings:
        """What the published code does: one series, all of its window, nothing tempered."""
        return {"temperature": 1.0, "use_past_values": False, "context_length": None}

    @property
    def search_space(self) -> SearchSpace:
        """The guide's grid. `context_length` can be searched as a third setting."""
        return {"temperature": (0.5, 0.7, 1.0), "use_past_values": (True, False)}

    def published_base(self, device: str) -> str:
        """Toto-2.0-313m on a GPU, Toto-2.0-22m elsewhere."""
        return "313m" if device.startswith("cuda") else "22m"

    def lora_targets(self, model: LoadedModel) -> tuple[str, ...]:
        """The attention's and the feed-forward's projections, as the generation names them."""
        from retrain_assets.models.toto.forecaster import network_of
        from retrain_assets.models.toto.toto1 import Toto1Network

        return TARGETS_1 if isinstance(network_of(model.module), Toto1Network) else TARGETS_2

    def check_settings(self, settings: Settings) -> None:
        """Raise BadInput naming a field that is unknown or out of range."""
        from retrain_assets.models.toto.settings import TotoSettings

        TotoSettings.parse(settings)

    def limits(self, base: str, *, checkpoints: Path) -> ModelLimits:
        """Longest window and patch of a base, without its weights. Raises BadInput if unknown."""
        entry = find_base(base, checkpoints=checkpoints)
        if entry.patch is not None:
            return ModelLimits(entry.max_context, entry.patch)
        from retrain_assets.models.checkpoint_folders import config_file
        from retrain_assets.models.toto.checkpoint import read_config

        path = config_file(entry.model, entry.revision, checkpoints=checkpoints)
        return ModelLimits(entry.max_context, read_config(path).patch_size)

    def base_digest(self, base: str, *, checkpoints: Path) -> str:
        """Of the network, without loading it; errors as `ModelFamily`."""
        entry = find_base(base, checkpoints=checkpoints)
        return source_digest(entry.model, entry.revision, checkpoints=checkpoints)

    def load(self, base: str, *, checkpoints: Path, device: str) -> LoadedModel:
        """Load a network, evaluation mode, weights frozen.

        Raises BadInput for an unknown base and CheckpointError for one that cannot be loaded.
        """
        import torch

        from retrain_assets.models.checkpoint_folders import local_folder
        from retrain_assets.models.digest import weights_digest
        from retrain_assets.models.lora import PUBLISHED
        from retrain_assets.models.toto.checkpoint import FOLDED, load_network
        from retrain_assets.models.toto.toto2 import Toto2Network

        entry = find_base(base, checkpoints=checkpoints)
        network = load_network(local_folder(entry.model, entry.revision, checkpoints=checkpoints))
        place = torch.device(device)
        return LoadedModel(
            family=self.name,
            base=base,
            module=network.to(place),
            companion=None,
            limits=ModelLimits(entry.max_context, network.config.patch_size),
            fingerprint=weights_digest(network.state_dict()),
            device=place,
            base_weights=FOLDED if isinstance(network, Toto2Network) else PUBLISHED,
        )

    def training_task(
        self,
        model: LoadedModel,
        bars: pd.DataFrame,
        *,
        train: WindowRange,
        validation: WindowRange,
        loss: str,
    ) -> TrainingTask:
        """Windows of one stock's bars as batches of series and the named loss."""
        from retrain_assets.models.toto.training import TotoTrainingTask, TotoWindows

        return TotoTrainingTask(
            train=TotoWindows.cut(bars, train),
            validation=TotoWindows.cut(bars, validation),
            loss=loss,
            device=model.device,
        )

    def forecaster(
        self, model: LoadedModel, *, name: str, options: Mapping[str, Any] | None = None
    ) -> Forecaster:
        """The model, with its adapter if it carries one, as a forecaster called `name`.

        options: `paths`, `windows_at_once` of `TotoForecaster`; BadInput for others.
        """
        from retrain_assets.models.toto.forecaster import TotoForecaster

        given = checked_options(options, self.options, self.title)
        return TotoForecaster(model, name=name, **given)

    def pretrain(
        self,
        size: str,
        bars: Mapping[str, pd.DataFrame],
        *,
        until: pd.Timestamp,
        checkpoints: Path,
        report: Callable[[str, Progress], None],
    ) -> Mapping[str, Any]:
        """Train a small network: `nano` of the second generation, `nano-1` of the first."""
        from retrain_assets.models.toto.pretrain import pretrain

        return pretrain(size, bars, until=until, folder=checkpoints, report=report)


FAMILY: ModelFamily = TotoFamily()
