"""The options of `retrain run` and their kin: how they are written and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

Stocks = Annotated[
    list[str] | None,
    typer.Option(
        "--stocks", metavar="SYMBOL...", help="These stocks; one without bars is an error."
    ),
]
Priority = Annotated[bool, typer.Option("--priority", help="The universe's priority stocks.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Every stock of the universe, and any other with bars.")
]
Month = Annotated[
    str | None,
    typer.Option(metavar="YYYY-MM", help="Month to train for; by default the last one complete."),
]
ModelType = Annotated[
    str, typer.Option(metavar="FAMILY", help="A model family such as kronos, or both for all.")
]
HoldoutDays = Annotated[int, typer.Option(min=1, help="Sessions of one holdout forecast.")]
PredictionLength = Annotated[
    int | None, typer.Option(min=1, help="Bars to predict; by default 16 to 64, by bars stored.")
]
Base = Annotated[str | None, typer.Option(help="Base model, such as nano, mini, small or base.")]
ContextLength = Annotated[
    int | None,
    typer.Option(min=128, help="Bars to look back on; by default 256 to 1024, by bars stored."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Most optimizer steps of one adapter.")]
EpochsScale = Annotated[float, typer.Option(help="Factor on the policy's epochs.")]
NoExtended = Annotated[
    bool, typer.Option("--no-extended-epochs", help="Leave out the policy's half more epochs.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of training and of sampled forecasts.")]
WarmStart = Annotated[
    bool, typer.Option("--warm-start", help="Start from the previous month's adapter.")
]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Stocks to run at a time, each in a process of its own.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show the results only.")]


def spread_lists(arguments: Sequence[str], flag: str = "--stocks") -> list[str]:
    """Let one flag take several values: `--stocks A B` becomes `--stocks A --stocks B`.

    Values may also be joined by commas.
    """
    spread: list[str] = []
    taking = False
    for argument in arguments:
        value = argument.removeprefix(f"{flag}=")
        if value == argument and argument.startswith("-"):
            taking = argument == flag
            spread += [] if taking else [argument]
            continue
        taking = taking or value != argument
        parts = [part for part in value.split(",") if part] if taking else []
        spread += [word for part in parts for word in (flag, part)] if taking else [argument]
    return spread
