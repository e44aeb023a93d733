"""The options of `retrain run` and their kin: how they are written and what they mean."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import typer

from retrain_assets.commands import completing
from retrain_assets.errors import BadInput

_OFF = ("off", "none", "null")
_TRUTH = {"true": True, "false": False}

Stocks = Annotated[
    list[str] | None,
    typer.Option(
        "--stocks",
        metavar="SYMBOL...",
        help="These stocks; one without bars is an error.",
        autocompletion=completing.symbols,
    ),
]
Priority = Annotated[bool, typer.Option("--priority", help="The universe's priority stocks.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Every stock of the universe, and any other with bars.")
]
Month = Annotated[
    str | None,
    typer.Option(
        metavar="YYYY-MM",
        help="Month whose end is the present; by default the last complete.",
        autocompletion=completing.months,
    ),
]
ModelType = Annotated[
    str,
    typer.Option(
        metavar="FAMILY",
        help="A model family such as kronos, or both for all.",
        autocompletion=completing.families,
    ),
]
HoldoutDays = Annotated[int, typer.Option(min=1, help="Sessions of one holdout forecast.")]
PredictionLength = Annotated[
    int | None, typer.Option(min=1, help="Bars to predict; by default 16 to 64, by bars stored.")
]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="[FAMILY=]NAME",
        help="Base model, by family if they differ: kronos=small,toto=22m; `published` takes the "
        "published one that suits the device. By default that of universe.yaml, else nano.",
        autocompletion=completing.bases,
    ),
]
ContextLength = Annotated[
    int | None,
    typer.Option(min=128, help="Bars to look back on; by default 256 to 1024, by bars stored."),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Most optimizer steps of one adapter.")]
EpochsScale = Annotated[float, typer.Option(help="Factor on the policy's epochs.")]
NoExtended = Annotated[
    bool, typer.Option("--no-extended-epochs", help="Leave out the policy's half more epochs.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of training, of sampled forecasts, of a subset.")
]
WarmStart = Annotated[
    bool, typer.Option("--warm-start", help="Start from the previous month's adapter.")
]
Force = Annotated[bool, typer.Option("--force", help="Compute also what is stored and unchanged.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Stocks to run at a time, each in a process of its own.")
]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Show the results only.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object; progress and tables go to standard error."),
]
NoSearch = Annotated[
    bool, typer.Option("--no-search", help="Leave out the search of inference parameters.")
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="NAME=V,V...",
        help="Values to try of a setting, `off` among them; the others keep the family's.",
    ),
]
Exhaustive = Annotated[
    bool, typer.Option("--exhaustive", help="Try every setting on every origin: drop none early.")
]
Subset = Annotated[
    int | None, typer.Option(min=1, help="Try so many settings, drawn from the grid at random.")
]
UpstreamFilters = Annotated[
    bool,
    typer.Option("--upstream-filters", help="Let a top_k override top_p, as published Kronos."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="Of the forecasts' products: fp32 (default), or bf16, which is faster only "
        "where processor or card multiplies it natively."
    ),
]
OtherHoldoutDays = Annotated[
    int | None,
    typer.Option(
        "--holdout-days", min=1, help="Sessions of one forecast; by default the adapter's."
    ),
]
OtherPredictionLength = Annotated[
    int | None,
    typer.Option(
        "--prediction-length", min=1, help="Bars of the long forecast; by default the adapter's."
    ),
]

SameHoldoutDays = Annotated[
    int | None,
    typer.Option(
        "--holdout-days", min=1, help="Sessions of one forecast that adapters must be made for."
    ),
]
SamePredictionLength = Annotated[
    int | None,
    typer.Option(
        "--prediction-length", min=1, help="Bars to predict that adapters must be made for."
    ),
]


def read_bases(text: str | None, families: Sequence[str]) -> dict[str, str]:
    """Base by family from `name` (for all of them) or `family=name,family=name`.

    Raises BadInput for a family that is not among `families` or is given twice.
    """
    if text is None:
        return {}
    if "=" not in text:
        return dict.fromkeys(families, text)
    bases: dict[str, str] = {}
    for part in text.split(","):
        name, _, base = (word.strip() for word in part.partition("="))
        if name not in families or name in bases or not base:
            raise BadInput(
                f"--base {text}: give one base for all, or one for each family, such as "
                f"{','.join(f'{family}=nano' for family in families)}"
            )
        bases[name] = base
    return bases


def read_grid(texts: Sequence[str]) -> dict[str, list[float | int | bool | None]]:
    """Settings and their values from `name=value,value`; `off` is None.

    Raises BadInput, showing how to write it, for anything else and for a name given twice.
    """
    grid: dict[str, list[float | int | bool | None]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise BadInput(
                f"--grid {text}: write a setting and its values, such as top_k=20,50,off"
            )
        if name in grid:
            raise BadInput(f"--grid {name} is given twice: join its values with commas")
        grid[name] = [_read_value(name, value.strip()) for value in values.split(",")]
    return grid


def _read_value(name: str, text: str) -> float | int | bool | None:
    word = text.lower()
    if word in _OFF or word in _TRUTH:
        return _TRUTH.get(word)
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise BadInput(f"--grid {name}: {text!r} is no number: give numbers, true, false or off")


def spread_lists(arguments: Sequence[str]) -> list[str]:
    """Let flags take several values: `--stocks A B` becomes `--stocks A --stocks B`.

    Symbols may also be joined by commas; `--grid` keeps those that join its values.
    """
    return _spread(_spread(arguments, "--stocks", ","), "--grid", None)


def _spread(arguments: Sequence[str], flag: str, comma: str | None) -> list[str]:
    """Repeat one flag before each of its values, which `comma` separates beside blanks.

    Raises BadInput if it is given without any.
    """
    spread: list[str] = []
    taking = False
    for argument, following in itertools.pairwise((*arguments, "-")):
        value = argument.removeprefix(f"{flag}=")
        if value == argument and argument.startswith("-"):
            taking = argument == flag
            if taking and following.startswith("-"):
                raise BadInput(f"{flag} is given without a value: add one, or leave it out")
            spread += [] if taking else [argument]
            continue
        taking = taking or value != argument
        parts = [part for part in value.split(comma) if part] if taking else []
        if taking and not parts:
            raise BadInput(f"{flag} is given an empty value: add one, or leave it out")
        spread += [word for part in parts for word in (flag, part)] if taking else [argument]
    return spread
