"""How long does Toto's parameter grid take, and how exact is it, beside the official packages?

    python -m benchmarks.toto_grid            # every table, about a quarter of an hour
    python -m benchmarks.toto_grid --gate     # the small one, measured on both sides, two minutes

The guide's grid is three temperatures, each with and without the companions' past. Both sides
take the same window, the same random weights of a published shape and the same number of threads,
in one process. With companions a window has five series of one group, without the close alone.

- official: one call a setting, since the packages have neither setting. Toto 1 draws 256 samples
  a call, as many at a time as is fastest here; where the table says so, fewer are measured and the
  rest is reckoned, linear in samples. Toto 2 is deterministic.
- ours: all six settings in one call of `TotoForecaster.forecast`.

Where other work keeps the processors busy, `--threads 1` is the honest figure: threads that wait
for each other cost the side with the small products, ours, several times its work.

Errors are of the median of the close, mean over the steps, in quartile distances of the
distribution. It is held against a quadrature of the density that the official module gives out;
Toto 2 gives out quantiles, of which the density is read as `QuantileKnots` says, so that there the
official error at temperature 1 is nothing by definition.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import toto_lora
from benchmarks.measure import Measured, measured
from benchmarks.toto_quadrature import Floats, Truth, of_knots, of_mixtures
from benchmarks.toto_sides import (
    HORIZON,
    Pair,
    official_mixture,
    official_quantiles,
    official_samples,
    random_window,
    series_of,
    toto1_pair,
    toto2_pair,
)
from retrain_assets.models.forecaster import Forecast, Window
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.forecaster import TotoForecaster

GRID = [
    dict(zip(FAMILY.search_space, values, strict=True))
    for values in itertools.product(*FAMILY.search_space.values())
]
SAMPLES = 256
AT_ONCE = (16, 64)
"""Samples at once that are tried for the official side; 256 would need several gigabytes."""
GATE_LENGTH, GATE_AT_ONCE = 1024, 256
SHARPENED = 0.5
"""The temperature other than 1 whose error is shown."""


@dataclass
class Row:
    """One line of a table. errors: at temperature 1 and at SHARPENED, None where it has none."""

    name: str
    took: Measured
    errors: tuple[float | None, float | None]
    note: str


@dataclass(frozen=True)
class Case:
    """A window, its series (1, 5, T) and the true medians of its close alone."""

    window: Window
    values: Tensor
    truths: tuple[Truth, Truth]

    @classmethod
    def of(cls, pair: Pair, length: int, *, generation: int) -> Case:
        """The last bars of a random walk, and what the official module says of them."""
        window = random_window(length)
        values = torch.from_numpy(series_of(window).values).to(pair.ours.device)
        alone = values[:, :1]
        if generation == 1:
            mixture = official_mixture(pair.official, alone)
            one, sharp = (of_mixtures(*mixture, tau) for tau in (1.0, SHARPENED))
        else:
            knots = official_quantiles(pair.official, alone)
            one, sharp = (of_knots(knots, tau) for tau in (1.0, SHARPENED))
        return cls(window, values, (one, sharp))

    def in_units(self, prices: Floats) -> Floats:
        """What our forecaster turned back into prices, in the units that networks see."""
        series = series_of(self.window)
        return (prices - series.mean) / series.scale


class Ours:
    """The whole grid in one call, and what it gave."""

    def __init__(self, pair: Pair, case: Case, repeats: int) -> None:
        self._forecaster = TotoForecaster(pair.ours, name="toto")
        self._case, self._repeats, self._device = case, repeats, pair.ours.device
        self._taken: list[Measured] = []
        self.forecast = self._run()

    def _run(self) -> Forecast:
        return self._forecaster.forecast([self._case.window], GRID, seed=0)

    def measure(self) -> None:
        """A few more runs."""
        self._taken += [measured(self._run, self._device) for _ in range(self._repeats)]

    def row(self) -> Row:
        """The middle run, with the errors."""
        errors = [
            truth.error(self._case.in_units(self._median(tau)))
            for tau, truth in zip((1.0, SHARPENED), self._case.truths, strict=True)
        ]
        return Row(
            "ours", middle(self._taken), (errors[0], errors[1]), f"middle of {len(self._taken)}"
        )

    def _median(self, tau: float) -> Floats:
        setting = {"temperature": tau, "use_past_values": False}
        return self.forecast.median[GRID.index(setting), 0]


def middle(taken: Sequence[Measured]) -> Measured:
    """The run of median seconds."""
    return sorted(taken, key=lambda one: one.seconds)[len(taken) // 2]


def total(parts: Sequence[tuple[float, Measured]]) -> Measured:
    """So many times each; of memory the most."""
    return Measured(
        sum(n * one.seconds for n, one in parts),
        sum(n * one.cpu_seconds for n, one in parts),
        max(one.peak_mb for _, one in parts),
    )


def gate(device: torch.device, repeats: int) -> float:
    """A small Toto 1, both sides measured whole; returns official over ours in wall clock."""
    pair = toto1_pair("small", GATE_LENGTH, device)
    case = Case.of(pair, GATE_LENGTH, generation=1)
    alone, at_once = case.values[:, :1], GATE_AT_ONCE
    samples = official_samples(pair.official, alone, samples=SAMPLES, at_once=at_once)  # warm-up

    ours, taken = Ours(pair, case, repeats), []
    for setting in GRID:
        values = case.values if setting["use_past_values"] else alone
        ours.measure()  # in between, so that both sides meet the machine in the same mood
        taken.append(
            measured(
                lambda values=values: official_samples(  # type: ignore[misc]
                    pair.official, values, samples=SAMPLES, at_once=at_once
                ),
                device,
            )
        )
    took = total([(1, one) for one in taken])
    error = case.truths[0].error(_median(samples))
    note = f"measured, {len(GRID)} x {SAMPLES} samples, {at_once} at once"
    rows = [Row("official", took, (error, None), note), ours.row()]
    show(f"small Toto 1 {GATE_LENGTH}/{HORIZON}", rows, case, device)
    return took.seconds / rows[1].took.seconds


def toto1(length: int, device: torch.device, repeats: int) -> None:
    """The 151M shape; the official side is reckoned from some of its samples."""
    pair = toto1_pair("151M", length, device)
    case = Case.of(pair, length, generation=1)
    alone = case.values[:, :1]
    official_samples(pair.official, alone, samples=AT_ONCE[0], at_once=AT_ONCE[0])  # warm-up
    ours = Ours(pair, case, repeats)
    ours.measure()
    best = [fastest(pair, values, device) for values in (case.values, alone)]
    found: list[Tensor] = []
    whole = measured(
        lambda: found.append(
            official_samples(pair.official, alone, samples=SAMPLES, at_once=best[1][0])
        ),
        device,
    )
    ours.measure()
    calls = len(GRID) / 2
    took = total([(calls * SAMPLES / best[0][0], best[0][1]), (calls, whole)])
    note = (
        f"reckoned from {best[0][0]} and {SAMPLES} samples, {best[0][0]} and {best[1][0]} at once"
    )
    error = case.truths[0].error(_median(found[0]))
    rows = [Row("official", took, (error, None), note), ours.row()]
    show(f"Toto 1 151M {length}/{HORIZON}", rows, case, device)


def fastest(pair: Pair, values: Tensor, device: torch.device) -> tuple[int, Measured]:
    """The number of samples at once that takes least a sample, and what one batch of it took."""
    tried = {
        n: measured(
            lambda n=n: official_samples(pair.official, values, samples=n, at_once=n),  # type: ignore[misc]
            device,
        )
        for n in AT_ONCE
    }
    return min(tried.items(), key=lambda item: item[1].seconds / item[0])


def toto2(length: int, device: torch.device, repeats: int) -> None:
    """The 4m shape; both sides measured whole."""
    pair = toto2_pair(device)
    case = Case.of(pair, length, generation=2)

    def official() -> None:
        for setting in GRID:
            values = case.values if setting["use_past_values"] else case.values[:, :1]
            official_quantiles(pair.official, values)

    official()
    ours = Ours(pair, case, repeats)
    ours.measure()
    taken = [measured(official, device) for _ in range(2 * repeats)]
    ours.measure()
    knots = official_quantiles(pair.official, case.values[:, :1])
    error = case.truths[0].error(knots[:, 4])
    note = f"middle of {len(taken)}, {len(GRID)} deterministic calls"
    rows = [Row("official", middle(taken), (error, None), note), ours.row()]
    show(f"Toto 2 4m {length}/{HORIZON}", rows, case, device)
    report_parity(knots, case, ours.forecast)


def report_parity(knots: Floats, case: Case, forecast: Forecast) -> None:
    """How far the two sides' quantiles of the close are apart where both have them."""
    setting = GRID.index({"temperature": 1.0, "use_past_values": False})
    shared = [i for i, level in enumerate(forecast.levels) if level in (0.1, 0.5, 0.9)]
    ours = case.in_units(forecast.quantiles[setting, 0][shared])  # (level, step)
    spread = knots[:, 8] - knots[:, 0]
    apart = np.abs(ours - knots[:, [0, 4, 8]].T) / spread
    print(f"temperature 1: .1, .5 and .9 differ by at most {apart.max():.1e} of the 10-90 spread")


def _median(samples: Tensor) -> Floats:
    return np.median(samples.double().cpu().numpy(), axis=-1)


def show(title: str, rows: Sequence[Row], case: Case, device: torch.device) -> None:
    """Print one table; ratios are of the first row over each."""
    moved = case.truths[0].error(case.truths[1].median)
    own = max(truth.own_error for truth in case.truths)
    table = Table(
        title=f"{title}, {len(GRID)} settings, one window, {where(device)}",
        caption=f"errors of the close's median in quartile distances, against a quadrature "
        f"(itself to {own:.0e}); temperature {SHARPENED} moves the median by {moved:.2f}",
    )
    columns = ("s", "CPU s", "peak MB", "official/this", "CPU ratio", "error, 1", f"{SHARPENED}")
    for column in ("", *columns, "how"):
        table.add_column(column, justify="right" if column in columns else "left")
    first = rows[0].took
    for row in rows:
        table.add_row(
            row.name,
            f"{row.took.seconds:,.3f}",
            f"{row.took.cpu_seconds:,.3f}",
            f"{row.took.peak_mb:,.0f}",
            f"{first.seconds / row.took.seconds:,.1f}",
            f"{first.cpu_seconds / row.took.cpu_seconds:,.1f}",
            *("-" if error is None else f"{error:.1e}" for error in row.errors),
            row.note,
        )
    Console(width=130).print(table)


def where(device: torch.device) -> str:
    """The machine, for a title."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Print the tables asked for; with --gate the last line is the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", action="store_true", help="the small, fully measured table alone")
    parser.add_argument("--lengths", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-lora", action="store_true", help="no training steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ratio = gate(device, options.repeats)
    if not options.gate:
        tables: list[Callable[[int, torch.device, int], None]] = [toto1, toto2]
        for table, length in itertools.product(tables, options.lengths):
            table(length, device, options.repeats)
        if not options.skip_lora:
            toto_lora.tables(device, options.repeats)
    print(f"gate ratio: {ratio:.0f} x")


if __name__ == "__main__":
    main()
