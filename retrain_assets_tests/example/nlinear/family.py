"""NLinear behind the protocol of a model family. Importing this is cheap: torch comes later."""

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
from retrain_assets.models.nlinear.bases import find_base

if TYPE_CHECKING:
    from retrain_assets.models.forecaster import ModelFamily
    from retrain_assets.training.trainer import Progress


class NLinearFamily:
    """NLinear's bases, its adapters' target, training tasks and forecasters."""

    name: str = "nlinear"
    title: str = "NLinear"
    default_base: str = "nano"
    options: tuple[str, ...] = ()
    export_layout: ExportLayout = default_layout("nlinear")

    @property
    def default_settings(self) -> Settings:
        """All of the forecast move is kept."""
        return {"damping": 1.0}

    @property
    def search_space(self) -> SearchSpace:
        """Shares of the move to try."""
        return {"damping": (0.25, 0.5, 1.0)}

    def published_base(self, device: str) -> str:
        """The bundled one on every device: there are no published weights."""
        return "nano"

    def lora_targets(self, model: LoadedModel) -> tuple[str, ...]:
        """The one layer there is."""
        return ("mix",)

    def check_settings(self, settings: Settings) -> None:
        """Raise BadInput naming a field that is unknown or out of range."""
        from retrain_assets.models.nlinear.forecaster import damping

        damping(settings)

    def limits(self, base: str, *, checkpoints: Path) -> ModelLimits:
        """Longest window of a base. Raises BadInput if it is unknown."""
        return ModelLimits(find_base(base, checkpoints=checkpoints).max_context)

    def base_digest(self, base: str, *, checkpoints: Path) -> str:
        """Of the checkpoint's files; errors as `ModelFamily`."""
        entry = find_base(base, checkpoints=checkpoints)
        return source_digest(entry.model, None, checkpoints=checkpoints)

    def load(self, base: str, *, checkpoints: Path, device: str) -> LoadedModel:
        """Load a base, evaluation mode, weights frozen; errors as `ModelFamily`."""
        import torch

        from retrain_assets.models.checkpoint_folders import local_folder
        from retrain_assets.models.digest import weights_digest
        from retrain_assets.models.nlinear.network import load_network

        entry = find_base(base, checkpoints=checkpoints)
        network = load_network(local_folder(entry.model, None, checkpoints=checkpoints))
        place = torch.device(device)
        return LoadedModel(
            family=self.name,
            base=base,
            module=network.to(place),
            companion=None,
            limits=ModelLimits(entry.max_context),
            fingerprint=weights_digest(network.state_dict()),
            device=place,
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
        """Windows of one stock's closes and the named loss."""
        from retrain_assets.models.nlinear.training import NLinearTask, Windows

        return NLinearTask(
            train=Windows.cut(bars, train).to(model.device),
            validation=Windows.cut(bars, validation).to(model.device),
            loss=loss,
        )

    def forecaster(
        self, model: LoadedModel, *, name: str, options: Mapping[str, Any] | None = None
    ) -> Forecaster:
        """The model, with its adapter if it carries one, as a forecaster called `name`."""
        from retrain_assets.models.nlinear.forecaster import NLinearForecaster

        checked_options(options, self.options, self.title)
        return NLinearForecaster(model, name=name)

    def pretrain(
        self,
        size: str,
        bars: Mapping[str, pd.DataFrame],
        *,
        until: pd.Timestamp,
        checkpoints: Path,
        report: Callable[[str, Progress], None],
    ) -> Mapping[str, Any]:
        """Train the bundled base, `nano`."""
        from retrain_assets.models.nlinear.training import pretrain

        return pretrain(size, bars, until=until, folder=checkpoints, report=report)


FAMILY: ModelFamily = NLinearFamily()
