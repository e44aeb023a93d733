"""LoRA adapters (Hu et al. 2021) through peft: attach, save, load, warm-start.

An adapter folder has PEFT's layout (adapter_config.json, adapter_model.safetensors) and a line
on the form of the base's weights that it adds to. Loading goes through safetensors and JSON alone,
is strict about keys and shapes, and never falls back to a pickle as peft's own loader would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FORM_FILE = "base_weights.json"
PUBLISHED = "published"
"""The form of a base's weights where its family does not say otherwise."""


@dataclass(frozen=True)
class LoraSettings:
    """Shape of an adapter: rank, scaling numerator, dropout and the layers it wraps."""

    rank: int
    alpha: int
    dropout: float
    targets: tuple[str, ...]


def attach(module: nn.Module, settings: LoraSettings, *, seed: int) -> nn.Module:
    """Wrap the target layers of `module` (in place) and return the peft model around it.

    Only the adapter's weights are trainable. They start as peft does, B at zero, so the wrapped
    model computes what the base computes; A is drawn from `seed` without touching the
    process's random state.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped: nn.Module = get_peft_model(module, config)
    return wrapped


def adapter_weights(wrapped: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors by PEFT's file names, detached, on the CPU, in name order."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(wrapped)
    return {name: weights[name].detach().cpu().contiguous().clone() for name in sorted(weights)}


def set_adapter_weights(wrapped: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put `weights` (as from `adapter_weights`) into the model; strict about names and shapes."""
    from peft import set_peft_model_state_dict

    expected = {name: tuple(value.shape) for name, value in adapter_weights(wrapped).items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != given:
        raise CheckpointError(_difference(expected, given))
    set_peft_model_state_dict(wrapped, dict(weights))


def _difference(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    for name, shape in expected.items():
        if name not in given:
            return f"the adapter lacks {name}"
        if given[name] != shape:
            return f"the adapter's {name} has shape {given[name]}, its config says {shape}"
    surplus = next(name for name in given if name not in expected)
    return f"the adapter holds {surplus}, which its config does not mention"


def save(
    wrapped: nn.Module,
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    base_weights: str = PUBLISHED,
) -> None:
    """Write config and weights in PEFT's layout into an existing folder.

    base_weights: the form of the base's weights that the adapter adds to (see `LoadedModel`).
    """
    from safetensors.torch import save_file

    config: dict[str, Any] = wrapped.peft_config["default"].to_dict()  # type: ignore[index,union-attr]  # peft's
    # A set has no order, and a file that differs between equal runs cannot be compared.
    config["target_modules"] = sorted(config["target_modules"])
    config["inference_mode"] = True
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    save_file(dict(weights), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # Not among the file's own marks: their order differs between equal runs.
    text = json.dumps({"base_weights": base_weights})
    (folder / FORM_FILE).write_text(text + "\n", encoding="utf-8")


def load(module: nn.Module, folder: Path, *, base_weights: str = PUBLISHED) -> nn.Module:
    """Attach the adapter stored in `folder` to a base module, frozen, in evaluation mode.

    base_weights: the form of the module's weights. Raises CheckpointError naming the file or
    tensor at fault, also for an adapter that adds to weights of another form. That the base is
    the right one is the caller's to check (`training.adapters.load_adapted` compares
    fingerprints).
    """
    settings = read_settings(folder)
    weights = read_weights(folder)
    found = _base_weights(folder)
    if found != base_weights:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: this adapter adds to the {found} weights of its base, and "
            f"the base at hand has them {base_weights}: the same numbers would mean another "
            "update; retrain the adapter here"
        )
    wrapped = attach(module, settings, seed=0)
    try:
        set_adapter_weights(wrapped, weights)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / WEIGHTS_FILE}: {error}") from error
    wrapped.requires_grad_(False)
    return wrapped.eval()


def read_settings(folder: Path) -> LoraSettings:
    """Rank, alpha, dropout and targets from a folder's adapter_config.json."""
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return LoraSettings(
            rank=int(raw["r"]),
            alpha=int(raw["lora_alpha"]),
            dropout=float(raw["lora_dropout"]),
            targets=tuple(raw["target_modules"]),
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: retrain this adapter") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a LoRA config: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's adapter_model.safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_FILE
    try:
        loaded: dict[str, Tensor] = load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: retrain this adapter") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not readable ({error}): retrain this adapter") from error
    return loaded


def _base_weights(folder: Path) -> str:
    """The form of the base's weights a folder's adapter adds to; published if it does not say."""
    path = folder / FORM_FILE
    if not path.exists():
        return PUBLISHED
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["base_weights"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} does not say base_weights: retrain this adapter") from error


def warm_weights(previous: Mapping[str, Tensor], wrapped: nn.Module) -> dict[str, Tensor]:
    """Start values for `wrapped` that compute what an earlier adapter computed.

    Ranks may differ, since a stock's difficulty changes from month to month; the scaling alpha / r
    is the same for every rank. A larger rank keeps the update exactly (the new columns of B are
    zero), a smaller one keeps its best approximation (truncated singular value decomposition).
    Raises CheckpointError if the two adapters wrap different layers.
    """
    fresh = adapter_weights(wrapped)
    if set(fresh) != set(previous):
        odd = sorted(set(fresh) ^ set(previous))[0]
        raise CheckpointError(
            f"the earlier adapter wraps other layers ({odd}): start from the base"
        )
    for a_name in [name for name in fresh if ".lora_A." in name]:
        b_name = a_name.replace(".lora_A.", ".lora_B.")
        fresh[a_name], fresh[b_name] = _change_rank(
            previous[a_name], previous[b_name], fresh[a_name]
        )
    return fresh


def _change_rank(a: Tensor, b: Tensor, fresh_a: Tensor) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) at the rank of `fresh_a`, with the product kept."""
    import torch

    rank = fresh_a.shape[0]
    if rank >= a.shape[0]:
        grown_a, grown_b = fresh_a.clone(), torch.zeros(b.shape[0], rank)
        grown_a[: a.shape[0]] = a
        grown_b[:, : b.shape[1]] = b
        return grown_a, grown_b
    u, s, v = torch.linalg.svd(b @ a, full_matrices=False)
    root = s[:rank].sqrt()
    return (root[:, None] * v[:rank]).contiguous(), (u[:, :rank] * root).contiguous()


def merged_weight(layer: nn.Module) -> Tensor:
    """Weight (out, in) of a linear layer with its adapter, if it carries one, added; detached."""
    base = layer.get_submodule("base_layer") if hasattr(layer, "base_layer") else layer
    weight: Tensor = base.get_parameter("weight").detach()
    if base is layer or layer.merged:
        return weight
    for name in layer.active_adapters:  # type: ignore[union-attr]  # peft's own layer
        weight = weight + layer.get_delta_weight(name).detach()  # type: ignore[operator]  # as above
    return weight


def trainable(wrapped: nn.Module) -> Sequence[torch.nn.Parameter]:
    """The parameters an optimizer may change, in a fixed order."""
    return [value for _, value in sorted(wrapped.named_parameters()) if value.requires_grad]
