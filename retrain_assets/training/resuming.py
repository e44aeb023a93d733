"""Training checkpoints: everything a killed fit needs to end as if it had never stopped.

A checkpoint is a folder with one folder per generation, of which the last two are kept: safetensors
for the tensors (weights, best weights, optimizer moments, random states) and JSON for the rest, the
digests of the tensor files among it. Each is written whole under a new name, so what was there is
never touched, and a generation that has come to harm leaves the one before. No pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import CheckpointError, RetrainError
from retrain_assets.files import atomic_folder, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2
"""Generations that are kept."""
_STATE_FILE = "state.json"
_TENSOR_FILES = ("weights", "best", "moments", "random")


@dataclass(frozen=True)
class StoredFit:
    """Where a fit stood at the end of an epoch.

    weights, best: trainable tensors by parameter name, now and at the lowest validation loss.
    moments: of the optimizer, by `parameter/moment`. random: states of the random generators.
    state: the trainer's `FitState` as JSON.
    """

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

    def save(self, stored: StoredFit) -> None:
        """Write the state of the fit after an epoch, and drop all but the one before."""
        from safetensors.torch import save_file

        there = self._generations()
        number = 1 + (int(there[-1].name) if there else 0)
        with atomic_folder(self.folder / f"{number:06d}") as partial:
            for name in _TENSOR_FILES:
                tensors: dict[str, Tensor] = getattr(stored, name)
                flat = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
                save_file(flat, partial / f"{name}.safetensors")
            content = {"identity": self.identity, "notes": self.notes, "state": stored.state}
            write_json(partial / _STATE_FILE, content | {"digests": _digests(partial, content)})
        for old in self._generations()[:-KEPT]:
            shutil.rmtree(old)

    def load(self) -> tuple[StoredFit | None, list[str]]:
        """The latest stored state that is whole, and what is wrong with those after it, in words.

        The state is None where nothing is stored yet, or nothing that is whole. Raises
        CheckpointError if the folder belongs to another fit.
        """
        damage: list[str] = []
        for generation in reversed(self._generations()):
            try:
                return self._read(generation), damage
            except _Damaged as error:
                damage.append(str(error))
        return None, damage

    def stored_notes(self) -> dict[str, Any]:
        """The notes of a stored checkpoint, empty where nothing is stored that can be read."""
        for generation in reversed(self._generations()):
            with contextlib.suppress(RetrainError, KeyError, TypeError):
                notes: dict[str, Any] = read_json(generation / _STATE_FILE)["notes"]
                return notes
        return {}

    def remove(self) -> None:
        """Delete the working folder once the fit's result is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _generations(self) -> list[Path]:
        """Folders of what is stored, oldest first."""
        return sorted(self.folder.glob("[0-9]" * 6)) if self.folder.is_dir() else []

    def _read(self, generation: Path) -> StoredFit:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            stored = read_json(generation / _STATE_FILE)
            digests = stored.pop("digests")
            found = _digests(generation, stored)
            if odd := sorted(name for name in found if found[name] != digests[name]):
                raise _Damaged(f"{generation / odd[0]} is not what was written")
            files = {name: generation / f"{name}.safetensors" for name in _TENSOR_FILES}
            tensors = {name: load_file(file) for name, file in files.items()}
        except (RetrainError, SafetensorError, OSError) as error:
            raise _Damaged(str(error)) from error
        except (AttributeError, KeyError, TypeError) as error:
            raise _Damaged(f"{generation / _STATE_FILE} lacks its digests") from error
        if stored["identity"] != self.identity:
            raise CheckpointError(
                f"{self.folder} is the checkpoint of another training run: remove it to start anew"
            )
        return StoredFit(**tensors, state=stored["state"])


class _Damaged(Exception):
    """A generation that is not what was written; says which file."""


def _digests(folder: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each tensor file, and of what the JSON file says beside these."""
    names = [f"{name}.safetensors" for name in _TENSOR_FILES]
    found = {name: (folder / name).read_bytes() for name in names}
    found[_STATE_FILE] = json.dumps(content, sort_keys=True).encode()
    return {name: hashlib.sha256(value).hexdigest() for name, value in found.items()}
