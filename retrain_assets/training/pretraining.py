"""Pretraining a small base on several series: its windows, the facts of its fit, and its card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import WindowRange
from retrain_assets.training.trainer import FitConfig, FitResult

VALIDATION_BARS = 190
"""Last bars before the cut-off, kept for early stopping."""


def known_windows(
    bars: Mapping[str, pd.DataFrame],
    until: pd.Timestamp,
    *,
    context: int,
    horizon: int,
    stride: int,
) -> Iterator[tuple[pd.DataFrame, WindowRange, WindowRange]]:
    """Of every symbol the bars up to `until`, and which windows of them train and validate.

    No training window reaches into the last VALIDATION_BARS before the cut-off; validation
    windows have their targets there, their contexts may reach back. Raises BadInput naming a
    symbol whose history is too short.
    """
    for symbol, frame in bars.items():
        known = frame[frame["session"] <= until].reset_index(drop=True)
        border = len(known) - VALIDATION_BARS
        if border < context + horizon:
            raise BadInput(
                f"{symbol} has {len(known)} bars up to {until.date()}: pretraining needs "
                f"{context + horizon + VALIDATION_BARS}"
            )
        train = WindowRange(context, border, context, horizon, stride)
        yield known, train, WindowRange(border, len(known), context, horizon, horizon // 2)


def fit_facts(config: FitConfig, result: FitResult) -> dict[str, Any]:
    """Seed, epochs, steps and losses of a fit, as JSON values."""
    return {
        "seed": config.seed,
        "epochs": result.state.epoch,
        "best_epoch": result.state.best_epoch,
        "steps": result.state.step,
        "validation_at_start": result.state.validations[0],
        "validation": result.state.validations[result.state.best_epoch],
    }


def card(
    name: str,
    *,
    title: str,
    windows: Sequence[str],
    command: str,
    losses: Sequence[str],
    facts: Mapping[str, Any],
) -> str:
    """README.md of a small base in Markdown.

    title: of the family. windows: lines of the list item on the windows. command: what made it.
    losses: lines that say in which units the losses stand. facts: JSON values, `symbols` and
    `until` among them.
    """
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A very small {title} base that lets the whole system run and be tested offline. It",
            "was trained on few series for a short time: do not trade on it, and do not judge",
            f"the published {title} models by it.",
            "",
            f"- Data: daily bars of {', '.join(facts['symbols'])} up to {facts['until']};",
            "  nothing later was read, so any month from 2022-01 on is out of sample.",
            *windows,
            f"- Made by `{command}`; the same seeds, library versions,",
            "  number of threads and processor type give the same weights.",
            *losses,
            "",
            "```json",
            json.dumps(facts, indent=2),
            "```",
            "",
        ]
    )
