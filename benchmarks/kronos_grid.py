"""How long does Kronos' parameter grid take, beside upstream's loop and beside a cached call?

    python -m benchmarks.kronos_grid            # every table, about a quarter of an hour
    python -m benchmarks.kronos_grid --gate     # the small one, measured on both sides

All sides take the same window, random weights of a published shape (which speed does not depend
on, but for one thing: see below) and the same number of threads, in one process.

- upstream: its own `auto_regressive_inference`, one call a setting. Where the table says so, few
  paths and steps are measured and the rest is reckoned from them, linear in both.
- cached call: one call a setting of our sampler, so that each call computes its context once and
  its paths as one batch, but nothing is shared between calls.
- ours: all settings in one call.

Random weights are the worst case for the sharing of histories: a trained model is surer of what
comes next, so more of its paths agree. `--trained` adds the bundled nano base on bundled bars.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Measured, copy_rate, matmul_rate, measured
from benchmarks.shapes import NETWORKS, TOKENIZER, random_model
from retrain_assets.models.forecaster import LoadedModel
from retrain_assets.models.kronos import FAMILY
from retrain_assets.models.kronos.forecaster import PRECISIONS, network_of
from retrain_assets.models.kronos.network import STAMP_SIZES
from retrain_assets.models.kronos.sampler import ContextBatch, Sampled, Sampler
from retrain_assets.models.kronos.settings import KronosSettings, RowTable
from retrain_assets.models.kronos.tokenizer import KronosTokenizer

GATE_SETTINGS = [
    KronosSettings(t, k, p, n)
    for t in (0.5, 1.0)
    for k in (20, None)
    for p in (0.9, None)
    for n in (5, 10)
]
GRID = [
    KronosSettings.parse(dict(zip(FAMILY.search_space, values, strict=True)))
    for values in itertools.product(*FAMILY.search_space.values())
]
FULL_CASES = {"mini": (512, 32), "small": (480, 32)}
SEED = 0


@dataclass
class Row:
    """One line of a table. paths: that the settings ask for. note: how it was measured."""

    name: str
    took: Measured
    rows: int
    note: str = "measured"


def random_batch(context: int, steps: int) -> ContextBatch:
    """One window: a normalised random walk, and calendar fields at random."""
    draw = np.random.default_rng(SEED)
    walk = draw.normal(size=(1, context, 6)).cumsum(axis=1)
    walk = (walk - walk.mean(axis=1, keepdims=True)) / walk.std(axis=1, keepdims=True)
    stamps = [draw.integers(0, n, (1, context + steps)) for n in STAMP_SIZES.values()]
    return ContextBatch(walk.astype(np.float32), np.stack(stamps, axis=-1), np.array([1]))


def our_side(
    model: LoadedModel, batch: ContextBatch, settings: Sequence[KronosSettings], dtype: torch.dtype
) -> Callable[[], Sampled]:
    """All settings in one call: weights fused, context computed, paths drawn and averaged."""
    network, tokenizer = network_of(model.module), model.companion
    assert isinstance(tokenizer, KronosTokenizer)
    table = RowTable.build(settings)

    def run() -> Sampled:
        sampled = Sampler(network, tokenizer, dtype=dtype).sample(batch, table, seed=SEED)
        for share in table.shares:
            sampled.closes[:, share].mean(axis=1)
        return sampled

    return run


def cached_side(
    model: LoadedModel, batch: ContextBatch, settings: Sequence[KronosSettings]
) -> Callable[[], None]:
    """A call for each setting; each computes the context anew. Weights are fused once for all."""
    network, tokenizer = network_of(model.module), model.companion
    assert isinstance(tokenizer, KronosTokenizer)
    sampler = Sampler(network, tokenizer)

    def run() -> None:
        for setting in settings:
            sampler.sample(batch, RowTable.build([setting]), seed=SEED).closes.mean(axis=1)

    return run


class Upstream:
    """Upstream's modules with a model's weights, and its forecast function."""

    def __init__(self, size: str, model: LoadedModel) -> None:
        from kronos_finance._vendor.kronos_model import kronos as package

        self._function = package.auto_regressive_inference
        self._network = package.Kronos(**NETWORKS[size]).to(model.device).eval()
        self._network.load_state_dict(model.module.state_dict(), strict=True)
        assert model.companion is not None
        self._tokenizer = package.KronosTokenizer(**TOKENIZER).to(model.device).eval()
        self._tokenizer.load_state_dict(model.companion.state_dict(), strict=True)
        self._limit = model.limits.max_context
        self._device = model.device

    def closes(
        self, batch: ContextBatch, setting: KronosSettings, *, steps: int, paths: int
    ) -> np.ndarray[Any, Any]:
        """The mean path of one setting, normalised (1, steps)."""
        context = batch.values.shape[1]
        stamps = torch.from_numpy(batch.stamps).to(self._device)
        bars = self._function(
            self._tokenizer,
            self._network,
            torch.from_numpy(batch.values).to(self._device),
            stamps[:, :context],
            stamps[:, context : context + steps],
            self._limit,
            steps,
            T=setting.temperature,
            top_k=setting.top_k or 0,
            top_p=setting.top_p or 1.0,
            sample_count=paths,
        )
        return np.asarray(bars)[:, -steps:, 3]

    def side(self, batch: ContextBatch, settings: Sequence[KronosSettings]) -> Callable[[], None]:
        """A call for each setting."""

        def run() -> None:
            for setting in settings:
                self.closes(batch, setting, steps=batch.steps, paths=setting.num_samples)

        return run

    def reckoned(
        self, batch: ContextBatch, settings: Sequence[KronosSettings], device: torch.device
    ) -> tuple[Measured, str]:
        """A grid's cost from calls of 5 paths with 1 and with 5 steps.

        The window grows by a bar a step, so steps later on cost more than those measured: the
        figure is on the low side.
        """
        paths, setting = 5, KronosSettings(1.0, None, 0.9, 5)
        few, more = (
            measured(lambda n=n: self.closes(batch, setting, steps=n, paths=paths), device)  # type: ignore[misc]
            for n in (1, 5)
        )
        total = sum(one.num_samples for one in settings) / paths

        def whole(one: float, five: float) -> float:
            step = (five - one) / 4
            return total * (one + step * (batch.steps - 1))

        took = Measured(
            whole(few.seconds, more.seconds),
            whole(few.cpu_seconds, more.cpu_seconds),
            more.peak_mb,
        )
        return took, "reckoned from 5 paths x 5 steps"


def greedy_difference(upstream: Upstream, model: LoadedModel, batch: ContextBatch) -> float:
    """Largest difference of the two sides' greedy forecasts, to show that they compute the same."""
    greedy = KronosSettings(1.0, 1, None, 1)
    theirs = upstream.closes(batch, greedy, steps=batch.steps, paths=1)
    ours = our_side(model, batch, [greedy], torch.float32)().closes[:, 0]
    return float(np.abs(ours - theirs).max())


def gate(device: torch.device, repeats: int) -> float:
    """16 settings on mini 256/16, every side measured whole; returns upstream over ours."""
    model, batch = random_model("mini", device), random_batch(256, 16)
    upstream = Upstream("mini", model)
    ours = our_side(model, batch, GATE_SETTINGS, torch.float32)
    ours()
    before = [measured(ours, device) for _ in range(repeats)]
    theirs = measured(upstream.side(batch, GATE_SETTINGS), device)
    after = [measured(ours, device) for _ in range(repeats)]
    middle = sorted((*before, *after), key=lambda one: one.seconds)[repeats]
    paths = sum(one.num_samples for one in GATE_SETTINGS)
    rows = [
        Row("upstream", theirs, paths),
        Row("ours", middle, len(RowTable.build(GATE_SETTINGS)), f"middle of {2 * repeats}"),
    ]
    difference = greedy_difference(upstream, model, batch)
    show("mini 256/16, 16 settings, one origin", rows, device, difference)
    return theirs.seconds / middle.seconds


def full(size: str, device: torch.device) -> None:
    """The 192 settings of the guide, one origin."""
    context, steps = FULL_CASES[size]
    model, batch = random_model(size, device), random_batch(context, steps)
    upstream = Upstream(size, model)
    runs = {name: our_side(model, batch, GRID, dtype) for name, dtype in PRECISIONS.items()}
    runs["fp32"]()
    took, note = upstream.reckoned(batch, GRID, device)
    paths = sum(one.num_samples for one in GRID)
    rows = [Row("upstream", took, paths, note)]
    few = [next(s for s in GRID if s.num_samples == n and s.top_k == 20) for n in (5, 10, 20, 50)]
    per_size = measured(cached_side(model, batch, few), device)
    share = len(GRID) / len(few)
    cached = Measured(per_size.seconds * share, per_size.cpu_seconds * share, per_size.peak_mb)
    rows.append(Row("cached call", cached, paths, f"reckoned from {len(few)} of {len(GRID)} calls"))
    results = {}
    for name, run in runs.items():
        rows.append(
            Row(
                f"ours, {name}",
                measured(lambda r=run, n=name: results.update({n: r()}), device),
                len(RowTable.build(GRID)),
            )
        )  # type: ignore[misc]
    title = f"{size} {context}/{steps}, {len(GRID)} settings, one origin"
    show(title, rows, device, greedy_difference(upstream, model, batch))
    shares = [f"{row.name} {cached.seconds / row.took.seconds:.1f} x" for row in rows[2:]]
    print("cached call / " + ", ".join(shares))
    report_sharing(results["fp32"])
    report_precision(results)
    if device.type == "cuda":
        report_card(model, results["fp32"], rows[2].took, context, device)


def growth(device: torch.device) -> None:
    """Seconds a path and step as rows and horizon double: constant when growth is linear."""
    table = Table(title="growth, mini, context 256: ours", box=None)
    for column in ("settings", "rows", "steps", "s", "us/row/step", "us/computed bar"):
        table.add_column(column, justify="right")
    model = random_model("mini", device)
    halves = [one for one in GRID if one.temperature in (0.5, 1.2)]
    for settings, steps in ((halves, 16), (GRID, 16), (GRID, 32)):
        results: list[Sampled] = []
        run = our_side(model, random_batch(256, steps), settings, torch.float32)
        run()
        took = measured(lambda run=run, into=results: into.append(run()), device)  # type: ignore[misc]
        size = results[0].closes.size
        table.add_row(
            str(len(settings)),
            str(size // steps),
            str(steps),
            f"{took.seconds:.2f}",
            f"{1e6 * took.seconds / size:.1f}",
            f"{1e6 * took.seconds / results[0].computed:.1f}",
        )
    Console(width=100).print(table)


def trained(device: torch.device) -> None:
    """The bundled nano base on one window of bundled bars: how much a trained model shares."""
    from retrain_assets.evaluation.comparison import window_at
    from retrain_assets.market.bars import BarStore

    data = Path(__file__).parents[1] / "data"
    model = FAMILY.load("nano", checkpoints=data / "checkpoints", device=str(device))
    bars = BarStore(data / "market").read("NVDA")
    grid = [
        dict(zip(FAMILY.search_space, v, strict=True))
        for v in itertools.product(*FAMILY.search_space.values())
    ]
    table = Table(title="bundled nano base, NVDA, context 256, 192 settings: ours", box=None)
    for column in ("steps", "s", "bars drawn", "bars computed"):
        table.add_column(column, justify="right")
    for steps in (7, 64):
        forecaster = FAMILY.forecaster(model, name="kronos")
        forecast = forecaster.forecast(
            [window_at(bars, len(bars) - 1 - steps, 256, steps)], grid, seed=SEED
        )
        how = forecast.computation
        share = float(how["bars_computed"]) / float(how["bars_drawn"])
        table.add_row(str(steps), f"{forecast.seconds:.2f}", str(how["bars_drawn"]), f"{share:.0%}")
    Console(width=100).print(table)


def show(title: str, rows: Sequence[Row], device: torch.device, difference: float) -> None:
    """Print one table; ratios are of the first row over each."""
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    table = Table(
        title=f"{title}, {where}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        caption=f"greedy forecasts of the two sides differ by at most {difference:.1e}",
    )
    for column in ("", "rows", "s", "CPU s", "peak MB", "upstream/this", "CPU ratio", ""):
        table.add_column(column, justify="right" if column else "left")
    first = rows[0].took
    for row in rows:
        table.add_row(
            row.name,
            f"{row.rows:,}",
            f"{row.took.seconds:,.2f}",
            f"{row.took.cpu_seconds:,.2f}",
            f"{row.took.peak_mb:,.0f}",
            f"{first.seconds / row.took.seconds:,.1f}",
            f"{first.cpu_seconds / row.took.cpu_seconds:,.1f}",
            row.note,
        )
    Console(width=110).print(table)


def report_sharing(result: Sampled) -> None:
    """How many of the bars that were drawn had to be computed."""
    share = result.computed / result.closes.size
    print(f"bars computed: {result.computed:,} of {result.closes.size:,} drawn ({share:.0%})")


def report_precision(results: dict[str, Sampled]) -> None:
    """How far bf16 products move the forecasts, in standard deviations of the context."""
    exact, rough = results["fp32"].closes, results["bf16"].closes
    same = (np.abs(exact - rough).max(axis=-1) < 1e-3).mean()
    table = RowTable.build(GRID)
    means = [np.stack([c[:, share].mean(axis=1) for share in table.shares]) for c in (exact, rough)]
    moved = np.abs(means[0] - means[1])
    print(
        f"bf16 beside fp32: {same:.1%} of the paths are the same to 0.001; mean paths differ by "
        f"{moved.mean():.3f} on average and {moved.max():.3f} at most"
    )


def report_card(
    model: LoadedModel, result: Sampled, took: Measured, context: int, device: torch.device
) -> None:
    """Share of the card's own bf16 matmul rate and of its copying rate."""
    config, weights = network_of(model.module).config, 0
    for module in (network_of(model.module), model.companion):
        assert module is not None
        weights += sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear))
    attended = 4 * context * ((config.n_layers + 1) * config.d_model + 3 * TOKENIZER["d_model"])
    flops = result.computed * (2 * weights + attended)
    chunks = -(-result.closes.shape[1] // result.rows)
    moved = 4 * weights * result.closes.shape[2] * chunks
    print(
        f"ours, fp32: {flops / took.seconds / matmul_rate(device):.1%} of the card's bf16 rate, "
        f"{moved / took.seconds / copy_rate(device):.1%} of its bandwidth for weights alone"
    )


def main() -> None:
    """Print the tables asked for; with --gate the last line is the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", action="store_true", help="the small, fully measured table alone")
    parser.add_argument("--sizes", nargs="+", default=list(FULL_CASES), choices=list(FULL_CASES))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratio = gate(device, options.repeats)
    if not options.gate:
        for size in options.sizes:
            full(size, device)
        growth(device)
        trained(device)
    print(f"gate ratio: {ratio:.0f} x")


if __name__ == "__main__":
    main()
