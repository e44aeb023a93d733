"""What a bundled base says of itself: the facts of its pretraining, and a card that tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from retrain_assets.training.trainer import FitConfig, FitResult


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
