"""How long does a LoRA training step take, beside upstream's module with stock peft?

    python -m benchmarks.training [--sizes mini small] [--steps 5] [--context 448]

Both sides take the same bars, batch of 4 windows, adapter shape and AdamW, alternate step by step
in one process, and start from random weights of the published shape. Upstream's side is its own
recipe: encode the windows at every step, teacher forcing off, cross-entropy alone. Ours is what
the trainer runs: windows tokenised once, cross-entropy plus the guide's loss. On a CUDA device the
table also has bf16 autocast and the share of the card's own measured bf16 matmul rate.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.lora_step import Side, measure, optimizer_step
from benchmarks.measure import matmul_rate
from benchmarks.shapes import NETWORKS, TOKENIZER, adapter_settings, random_bars, random_model
from retrain_assets.models import lora
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.models.kronos.training import KronosTrainingTask

BATCH, HORIZON, RANK = 4, 64, 8


def our_sides(size: str, context: int, device: torch.device) -> list[Side]:
    """Our step with each of the guide's losses; on CUDA also under bf16 autocast."""
    sides = []
    windows = WindowRange(context, context + HORIZON + BATCH - 1, context, HORIZON)
    for loss in ("huber", "heteroscedastic"):
        for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
            model = random_model(size, device)
            model.module = lora.attach(model.module, adapter_settings(RANK), seed=0).train()
            bars = random_bars(context + HORIZON + BATCH - 1)
            task = KronosTrainingTask(model, bars, train=windows, validation=windows, loss=loss)
            step = optimizer_step(
                model.module, _loss_of(task, model.module, precision == "bf16", device)
            )
            flops = step_flops(model.module, BATCH * (context + HORIZON - 1))
            sides.append(Side(f"ours, {loss}, {precision}", step, flops))
    return sides


def _loss_of(
    task: KronosTrainingTask, module: nn.Module, bf16: bool, device: torch.device
) -> Callable[[], torch.Tensor]:
    rows = np.arange(BATCH)

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            return task.loss(module, rows)["loss"]

    return loss


def upstream_side(size: str, context: int, device: torch.device) -> Side:
    """Upstream's module and recipe with stock peft; needs kronos-finance."""
    from kronos_finance._vendor.kronos_model import Kronos, KronosTokenizer
    from peft import LoraConfig, get_peft_model

    from retrain_assets.models.kronos.preprocess import features, time_features
    from retrain_assets.training.windows import cut_windows, normalise_windows

    torch.manual_seed(0)
    tokenizer = KronosTokenizer(**TOKENIZER).to(device).eval()
    settings = adapter_settings(RANK)
    module = get_peft_model(
        Kronos(**NETWORKS[size]).to(device),
        LoraConfig(
            r=RANK,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
        ),
    ).train()
    bars = random_bars(context + HORIZON + BATCH - 1)
    windows = WindowRange(context, len(bars), context, HORIZON)
    cut = cut_windows(features(bars), windows).astype(np.float64)
    values = torch.from_numpy(normalise_windows(cut, context=context).values).float().to(device)
    stamps = cut_windows(time_features(bars["session"].dt), windows)
    stamp = torch.from_numpy(stamps.astype(np.float32)).to(device)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            s1, s2 = tokenizer.encode(values, half=True)
        logits = module(s1[:, :-1], s2[:, :-1], stamp[:, :-1].long())
        head = module.base_model.model.head
        total: torch.Tensor = head.compute_loss(logits[0], logits[1], s1[:, 1:], s2[:, 1:])[0]
        return total

    return Side("upstream + peft, fp32", optimizer_step(module, loss))


def step_flops(module: nn.Module, tokens: int) -> float:
    """Multiply-adds x 2 of a LoRA step: forward and the gradient to activations, weights frozen."""
    weights = sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
    return 4.0 * weights * tokens


def main() -> None:
    """Print one table a size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["mini", "small"], choices=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--context", type=int, default=448)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    card = matmul_rate(device) if device.type == "cuda" else None
    for size in options.sizes:
        sides = [upstream_side(size, options.context, device)]
        sides += our_sides(size, options.context, device)
        measure(sides, options.steps, device)
        show(f"{size} {options.context}/{HORIZON}", name, sides, options.context, card)


def show(title: str, device: str, sides: list[Side], context: int, card: float | None) -> None:
    """Print the table; ratios are upstream's median over the row's."""
    table = Table(
        title=f"LoRA step, {title}, batch {BATCH}, rank {RANK}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for column in ("", "s/step", "tokens/s", "peak MB", "upstream/this", "of card's bf16"):
        table.add_column(column, justify="right" if column else "left")
    base = statistics.median(sides[0].seconds)
    for side in sides:
        seconds = statistics.median(side.seconds)
        share = f"{side.flops / seconds / card:.1%}" if card and "bf16" in side.name else "-"
        table.add_row(
            side.name,
            f"{seconds:.3f}",
            f"{BATCH * (context + HORIZON - 1) / seconds:,.0f}",
            f"{side.peak_mb:,.0f}",
            f"{base / seconds:.2f}",
            share,
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
