"""Training checkpoints: everything a killed fit needs to end as if it had never stopped.

A checkpoint is one folder, replaced whole after every epoch: safetensors for the tensors
(weights, best weights, optimizer moments, random states) and JSON for the rest. No pickle.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import CheckpointError
from retrain_assets.files import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from retrain_assets.training.trainer import FitState

_TENSOR_FILES = ("weights", "best", "moments", "random")


@dataclass(frozen=True)
class StoredFit:
    """A checkpoint read back; the fields are those `TrainingCheckpoint.save` was given."""

    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    moments: dict[str, Tensor]
    random: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Where one fit keeps its state, and which fit it is.

    folder: working folder of the fit, gone when the fit's result is safe.
    identity: digest of all that determines the fit (bars, plan, split, base, seed); a
        checkpoint of another fit is refused rather than continued.
    notes: JSON values to carry along, such as the MLflow run the fit logs to.
    """

    folder: Path
    identity: str
    notes: dict[str, Any]

    @property
    def _last(self) -> Path:
        # Inside a folder of its own, so that what a killed write left behind goes with it.
        return self.folder / "last"

    def save(
        self,
        weights: dict[str, Tensor],
        best: dict[str, Tensor],
        moments: dict[str, Tensor],
        random: dict[str, Tensor],
        state: FitState,
    ) -> None:
        """Write the state of the fit after an epoch, replacing the one before."""
        from safetensors.torch import save_file

        with atomic_folder(self._last) as partial:
            groups = (weights, best, moments, random)
            for name, tensors in zip(_TENSOR_FILES, groups, strict=True):
                flat = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(flat, partial / f"{name}.safetensors")
            write_json(
                partial / "state.json",
                {"identity": self.identity, "notes": self.notes, "state": state.to_json()},
            )

    def load(self) -> StoredFit | None:
        """The stored state, None where nothing is stored yet.

        Raises CheckpointError if the folder belongs to another fit.
        """
        from safetensors.torch import load_file

        if not self._last.exists():
            return None
        stored = read_json(self._last / "state.json")
        if stored["identity"] != self.identity:
            raise CheckpointError(
                f"{self.folder} is the checkpoint of another training run: remove it to start anew"
            )
        tensors = {name: load_file(self._last / f"{name}.safetensors") for name in _TENSOR_FILES}
        return StoredFit(**tensors, state=stored["state"])

    def stored_notes(self) -> dict[str, Any]:
        """The notes of a stored checkpoint, empty where nothing is stored."""
        if not self._last.exists():
            return {}
        notes: dict[str, Any] = read_json(self._last / "state.json")["notes"]
        return notes

    def remove(self) -> None:
        """Delete the working folder once the fit's result is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)
