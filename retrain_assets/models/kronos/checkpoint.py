"""Kronos checkpoints on disk: config.json and model.safetensors, as published, read strictly.

A weight that is missing, left over, or of another shape or type than config.json demands is an
error with its name. (The published loader passes over such weights and leaves them random.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from retrain_assets.errors import CheckpointError
from retrain_assets.files import atomic_folder
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.kronos.bases import Base
from retrain_assets.models.kronos.config import NetworkConfig, TokenizerConfig
from retrain_assets.models.kronos.network import KronosNetwork
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_Module = TypeVar("_Module", KronosNetwork, KronosTokenizer)


def load_base(base: Base, *, checkpoints: Path) -> tuple[KronosNetwork, KronosTokenizer]:
    """Load a base's network and tokenizer on the CPU, in evaluation mode, weights frozen.

    Raises CheckpointError if a file cannot be had, does not fit its config, or if the two do
    not speak the same tokens.
    """
    model = local_folder(base.model, base.revision, checkpoints=checkpoints)
    companion = local_folder(base.tokenizer, base.tokenizer_revision, checkpoints=checkpoints)
    network, tokenizer = load_network(model), load_tokenizer(companion)
    for field in ("s1_bits", "s2_bits"):
        ours, theirs = getattr(network.config, field), getattr(tokenizer.config, field)
        if ours != theirs:
            raise CheckpointError(
                f"{model / CONFIG} has {field} {ours}, but {companion / CONFIG} has {theirs}: "
                "this tokenizer is not the one the network was trained with"
            )
    return network, tokenizer


def load_network(folder: Path) -> KronosNetwork:
    """Load a network folder; raises CheckpointError naming the file, field or weight at fault."""
    config = NetworkConfig.read(_existing(folder, CONFIG))
    with torch.device("meta"):  # shapes without values: no time or random numbers spent
        network = KronosNetwork(config)
    return _filled(network, folder)


def load_tokenizer(folder: Path) -> KronosTokenizer:
    """Load a tokenizer folder; raises CheckpointError naming the file, field or weight at fault."""
    config = TokenizerConfig.read(_existing(folder, CONFIG))
    with torch.device("meta"):
        tokenizer = KronosTokenizer(config)
    return _filled(tokenizer, folder)


def save_checkpoint(
    folder: Path, module: KronosNetwork | KronosTokenizer, *, card: str | None = None
) -> None:
    """Write config.json, model.safetensors and, if given, README.md; all of it or nothing."""
    weights = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
    with atomic_folder(folder) as partial:
        config = json.dumps(module.config.to_json(), indent=2) + "\n"
        (partial / CONFIG).write_text(config, encoding="utf-8")
        save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
        if card is not None:
            (partial / "README.md").write_text(card, encoding="utf-8")


def fingerprint(**modules: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of all weights of named modules.

    The same on every device, and independent of the order of the weights.
    """
    return weights_digest(
        {
            f"{part}.{name}": tensor
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
    )


def local_folder(source: str, revision: str | None, *, checkpoints: Path) -> Path:
    """Folder of a checkpoint; a hub id (one with a revision) is downloaded if need be.

    Raises CheckpointError if there is no such folder, or if the hub does not give it.
    """
    if revision is not None:
        return _downloaded(source, revision)
    folder = checkpoints / source  # an absolute source replaces the checkpoints folder
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} does not exist; if {source!r} is a hub id, pin it with a revision"
        )
    return folder


def _downloaded(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        path = snapshot_download(repository, revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{repository} at {revision} cannot be downloaded ({_first_line(error)}). Where the "
            f"hub can be reached, run `hf download {repository} --revision {revision} "
            "--local-dir FOLDER`; copy that folder into the checkpoints folder here and list it "
            "in bases.yaml under a name of its own"
        ) from error
    return Path(path)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _existing(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: a checkpoint is {CONFIG} and {WEIGHTS}")
    return path


def _filled(module: _Module, folder: Path) -> _Module:
    path = _existing(folder, WEIGHTS)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no readable safetensors file: {error}") from error
    _check_weights(module.state_dict(), weights, path)
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def _check_weights(wanted: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    for problem, names in (
        ("lacks", sorted(wanted.keys() - found.keys())),
        ("has the unknown", sorted(found.keys() - wanted.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                f"{path} {problem} weight {names[0]!r}{more}: it is not of the model that "
                f"{path.parent / CONFIG} describes"
            )
    for name, tensor in wanted.items():
        for what, should, is_ in (
            ("shape", tuple(tensor.shape), tuple(found[name].shape)),
            ("type", tensor.dtype, found[name].dtype),
        ):
            if should != is_:
                raise CheckpointError(
                    f"{path}: weight {name!r} has {what} {is_}, but {path.parent / CONFIG} "
                    f"demands {should}"
                )
        if not torch.isfinite(found[name]).all():
            raise CheckpointError(f"{path}: weight {name!r} holds values that are not finite")
