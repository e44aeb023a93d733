"""Kronos behind the protocol of a model family. Importing this is cheap: torch comes later."""

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
)
from retrain_assets.models.inputs import checked_options
from retrain_assets.models.kronos.bases import find_base

if TYPE_CHECKING:
    from retrain_assets.models.forecaster import ModelFamily
    from retrain_assets.training.trainer import Progress


LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "w1", "w2", "w3")
_EXPORTED = "kronostraining/artifacts/stock_specific/{symbol}"


class KronosFamily:
    """Kronos bases, their adapters' targets, training tasks and forecasters."""

    name: str = "kronos"
    title: str = "Kronos"
    default_base: str = "nano"
    options: tuple[str, ...] = ("compat", "precision", "row_budget")
    # The guide's folders. The checkpoints of a fit go when it ends; what it began with stays.
    export_layout: ExportLayout = ExportLayout(
        model=f"{_EXPORTED}/adapters/{{symbol}}",
        config=f"{_EXPORTED}/checkpoints/training_config.json",
        metrics=f"{_EXPORTED}/metrics/evaluation.json",
        log=f"{_EXPORTED}/metrics/training.log",
    )

    @property
    def default_settings(self) -> Settings:
        """The paper's settings for price forecasting (arXiv:2508.02739); no top_k is used."""
        return {"temperature": 0.6, "top_k": None, "top_p": 0.9, "num_samples": 10}

    @property
    def search_space(self) -> SearchSpace:
        """The guide's grid: 192 combinations, of which 48 decide paths and 4 say how many."""
        return {
            "num_samples": (5, 10, 20, 50),
            "temperature": (0.5, 0.7, 1.0, 1.2),
            "top_k": (20, 50, None),
            "top_p": (0.8, 0.9, 0.95, None),
        }

    def published_base(self, device: str) -> str:
        """Small on a GPU, mini elsewhere: 25 million weights and 4."""
        return "small" if device.startswith("cuda") else "mini"

    def lora_targets(self, model: LoadedModel) -> tuple[str, ...]:
        """The attention's and the feed-forward's projections, in every block of every base."""
        return LORA_TARGETS

    def check_settings(self, settings: Settings) -> None:
        """Raise BadInput naming a field that is unknown or out of range."""
        from retrain_assets.models.kronos.settings import KronosSettings

        KronosSettings.parse(settings)

    def limits(self, base: str, *, checkpoints: Path) -> ModelLimits:
        """Longest window of a base, without loading it. Raises BadInput if it is unknown."""
        return ModelLimits(max_context=find_base(base, checkpoints=checkpoints).max_context)

    def base_digest(self, base: str, *, checkpoints: Path) -> str:
        """Of network and tokenizer, without loading them; errors as `ModelFamily`."""
        entry = find_base(base, checkpoints=checkpoints)
        network = source_digest(entry.model, entry.revision, checkpoints=checkpoints)
        tokenizer = source_digest(
            entry.tokenizer, entry.tokenizer_revision, checkpoints=checkpoints
        )
        return f"{network} {tokenizer}"

    def load(self, base: str, *, checkpoints: Path, device: str) -> LoadedModel:
        """Load network (`module`) and tokenizer (`companion`), evaluation mode, weights frozen.

        Raises BadInput for an unknown base and CheckpointError for one that cannot be loaded.
        """
        import torch

        from retrain_assets.models.kronos.checkpoint import fingerprint, load_base

        entry = find_base(base, checkpoints=checkpoints)
        network, tokenizer = load_base(entry, checkpoints=checkpoints)
        place = torch.device(device)
        return LoadedModel(
            family=self.name,
            base=base,
            module=network.to(place),
            companion=tokenizer.to(place),
            limits=ModelLimits(max_context=entry.max_context),
            fingerprint=fingerprint(network=network, tokenizer=tokenizer),
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
        """Windows of one stock's bars as token batches and the named loss."""
        from retrain_assets.models.kronos.training import KronosTrainingTask

        return KronosTrainingTask(model, bars, train=train, validation=validation, loss=loss)

    def forecaster(
        self, model: LoadedModel, *, name: str, options: Mapping[str, Any] | None = None
    ) -> Forecaster:
        """The model, with its adapter if it carries one, as a forecaster called `name`.

        options: `compat`, `precision`, `row_budget` of `KronosForecaster`; BadInput for others.
        """
        from retrain_assets.models.kronos.forecaster import KronosForecaster

        given = checked_options(options, self.options, self.title)
        return KronosForecaster(model, name=name, **given)

    def pretrain(
        self,
        size: str,
        bars: Mapping[str, pd.DataFrame],
        *,
        until: pd.Timestamp,
        checkpoints: Path,
        report: Callable[[str, Progress], None],
    ) -> Mapping[str, Any]:
        """Train a small tokenizer and network, the base that lets the system run offline."""
        from retrain_assets.models.kronos.pretrain import pretrain

        return pretrain(size, bars, until=until, folder=checkpoints, report=report)


FAMILY: ModelFamily = KronosFamily()
