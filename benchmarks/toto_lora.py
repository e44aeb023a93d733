"""How long does a LoRA step on Toto take, beside the official modules with stock peft?

Tables of `benchmarks.toto_grid`. Both sides take the same four windows and the same mask, half of
the windows with all five series and half with the close alone (our training task draws that; the
seed of a step is one under which it draws two of four), score the same closes by the likelihood,
carry the same adapter and AdamW, and alternate step by step.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.lora_step import Side, measure, optimizer_step
from benchmarks.shapes import random_bars
from benchmarks.toto_sides import HORIZON, Pair, toto1_pair, toto1_twin, toto2_pair, toto2_twin
from retrain_assets.models import lora
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.models.toto.checkpoint import Network
from retrain_assets.models.toto.family import TARGETS_1, TARGETS_2
from retrain_assets.models.toto.objective import Batch, losses
from retrain_assets.models.toto.training import ALONE, TotoTrainingTask, TotoWindows

BATCH, CONTEXT, RANK = 4, 960, 16
LOSSES = ("heteroscedastic", "huber")
PATCHES = {1: 64, 2: 32}


def tables(device: torch.device, steps: int) -> None:
    """One table a generation."""
    for generation in (1, 2):
        table(generation, device, steps)


def table(generation: int, device: torch.device, steps: int) -> None:
    """The official step, and ours with two of the guide's losses."""
    pair = toto1_pair("151M", CONTEXT, device) if generation == 1 else toto2_pair(device)
    targets = TARGETS_1 if generation == 1 else TARGETS_2
    settings = lora.LoraSettings(RANK, 2 * RANK, 0.05, targets)
    windows = training_windows()
    batches = fixed_batches(windows, generation, device)
    difference = loss_difference(pair, batches, generation)
    # Ours first: peft wraps the official module in place.
    sides = []
    for loss in LOSSES:
        twin = toto1_twin(pair.official, "151M") if generation == 1 else toto2_twin(pair.official)
        sides.append(our_side(twin.to(device), windows, settings, loss, device))
    sides.insert(0, official_side(pair.official, batches, settings, generation))
    measure(sides, steps, device)
    show(("Toto 1 151M", "Toto 2 4m")[generation - 1], sides, difference, device)


def training_windows() -> TotoWindows:
    """BATCH windows of a random walk."""
    length = CONTEXT + HORIZON + BATCH - 1
    return TotoWindows.cut(random_bars(length), WindowRange(CONTEXT, length, CONTEXT, HORIZON))


def fixed_batches(windows: TotoWindows, generation: int, device: torch.device) -> list[Batch]:
    """Half of the windows with the close alone, half whole, all closes that are shown scored."""
    patch = PATCHES[generation]
    most = CONTEXT // patch
    cut = torch.tensor([most, most] if generation == 1 else [most, most * 3 // 4], device=device)
    values = windows.values.to(device)
    position = torch.arange(values.shape[-1], device=device)
    scored = position < cut[:, None] * patch + HORIZON
    half = BATCH // 2
    return [Batch(values[:half, :1], scored, cut), Batch(values[half:], scored, cut)]


def our_side(
    network: Network,
    windows: TotoWindows,
    settings: lora.LoraSettings,
    loss: str,
    device: torch.device,
) -> Side:
    """What the trainer runs."""
    module = lora.attach(network, settings, seed=0).train()
    task = TotoTrainingTask(train=windows, validation=windows, loss=loss, device=device)
    rows, seed = np.arange(BATCH), balanced_seed()

    def run() -> Tensor:
        torch.manual_seed(seed)
        return task.loss(module, rows)["loss"]

    return Side(f"ours, {loss}", optimizer_step(module, run))


def official_side(
    official: Any, batches: Sequence[Batch], settings: lora.LoraSettings, generation: int
) -> Side:
    """The package's module with stock peft, and the likelihood."""
    from peft import LoraConfig, get_peft_model

    module = get_peft_model(
        official,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
        ),
    ).train()
    return Side(
        "official + peft", optimizer_step(module, lambda: mean(module, batches, generation))
    )


def balanced_seed() -> int:
    """A seed under which the training task draws half of the windows to stand alone."""
    for seed in itertools.count():
        draw = torch.Generator().manual_seed(seed)
        torch.randint(1, CONTEXT, (BATCH,), generator=draw)  # where horizons are cut
        if (torch.rand(BATCH, generator=draw) < ALONE).sum() == BATCH // 2:
            return seed
    raise AssertionError


def mean(module: nn.Module, batches: Sequence[Batch], generation: int) -> Tensor:
    """The official module's likelihood loss over all scored closes."""
    patch = PATCHES[generation]
    one = negative_log_likelihood if generation == 1 else pinball
    scored = [one(module, batch)[batch.scored[:, patch:]] for batch in batches]
    return torch.cat(scored).mean()


def negative_log_likelihood(module: nn.Module, batch: Batch) -> Tensor:
    """Of Toto 1 for each close after the first patch, in units of the patch before it."""
    patch = PATCHES[1]
    past = batch.values[..., :-patch]
    ids = torch.zeros(past.shape, dtype=torch.int64, device=past.device)
    mixture, loc, scale = module(past, torch.ones_like(past, dtype=torch.bool), ids)
    target = (batch.values[..., patch:] - loc) / scale
    loss: Tensor = -mixture.log_prob(target)[:, 0]
    return loss


def pinball(module: nn.Module, batch: Batch) -> Tensor:
    """Of Toto 2 for each close after the first patch, in asinh units, the horizon masked."""
    patch = PATCHES[2]
    past = batch.values[..., :-patch]
    known = torch.arange(past.shape[-1], device=past.device) < batch.cut[:, None] * patch
    known = known[:, None].expand(past.shape)
    ids = torch.zeros(past.shape[:2], dtype=torch.int64, device=past.device)
    found = module(past, torch.ones_like(known), known, ids)
    target = ((batch.values[..., patch:] - found.loc) / found.scale).asinh()[:, 0]
    levels = torch.arange(1, 10, device=past.device)[:, None, None] / 10
    error = target - found.quantiles[:, :, 0].flatten(-2)  # (9, B, T - patch)
    return 2 * torch.maximum(levels * error, (levels - 1) * error).mean(0)


@torch.no_grad()
def loss_difference(pair: Pair, batches: Sequence[Batch], generation: int) -> float:
    """Relative difference of the two sides' likelihood losses without dropout."""
    network: Any = pair.ours.module
    found = [losses(network, batch, loss="heteroscedastic") for batch in batches]
    ours = sum(sums["loss"] for sums, _ in found) / sum(count for _, count in found)
    theirs = mean(pair.official, batches, generation)
    return float((ours / theirs - 1).abs())


def show(title: str, sides: Sequence[Side], difference: float, device: torch.device) -> None:
    """Print the table; ratios are of the first row over each."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    made = Table(
        title=f"LoRA step, {title} {CONTEXT}/{HORIZON}, batch {BATCH}, rank {RANK}, {name}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}",
        caption=f"median of {len(sides[0].seconds)} steps; without dropout the two sides' "
        f"likelihood losses differ by {difference:.0e} of the loss",
    )
    for column in ("", "s/step", "peak MB", "official/this", "memory ratio"):
        made.add_column(column, justify="right" if column else "left")
    base = statistics.median(sides[0].seconds)
    for side in sides:
        seconds = statistics.median(side.seconds)
        made.add_row(
            side.name,
            f"{seconds:.3f}",
            f"{side.peak_mb:,.0f}",
            f"{base / seconds:.2f}",
            f"{sides[0].peak_mb / side.peak_mb:.2f}",
        )
    Console(width=110).print(made)
