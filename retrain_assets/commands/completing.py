"""What a shell may complete: symbols, months, model families and bases.

A shell asks at every press of a key, so nothing heavy is imported here and files are only looked
at. What cannot be found is not offered, and no error is ever shown.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from retrain_assets.home import Home

ASKED = "_RETRAIN_COMPLETE"
"""Set by the shell's script when it asks."""
REPEATED = ("--stocks", "--grid")
"""Flags that take several values."""
BOTH, PUBLISHED = "both", "published"

Complete = Callable[[str], list[str]]


def _silent(find: Callable[[str], Iterator[str]]) -> Complete:
    """What `find` yields that begins with what was typed; nothing if it raises."""

    @functools.wraps(find)
    def complete(incomplete: str) -> list[str]:
        try:
            return [found for found in dict.fromkeys(find(incomplete)) if found]
        except Exception:  # a shell has no place to show it, and the command itself will
            return []

    return complete


@_silent
def symbols(incomplete: str) -> Iterator[str]:
    """Symbols of the universe, then others that have bars; in capitals whatever was typed.

    Values that a comma joins are completed at the last.
    """
    home = Home.find()
    known = [stock["symbol"] for stock in _universe(home)["stocks"]]
    known += sorted(file.stem for file in home.market.glob("*.parquet"))
    before, comma, _ = incomplete.rpartition(",")
    yield from (f"{before}{comma}{symbol}" for symbol in known)


@_silent
def months(incomplete: str) -> Iterator[str]:
    """Months from the universe's first to the running one, the latest first."""
    first = str(_universe(Home.find())["first_month"])
    year, month = (int(part) for part in first.split("-"))
    today = dt.datetime.now(dt.UTC)
    for count in range(12 * today.year + today.month, 12 * year + month - 1, -1):
        years, months = divmod(count - 1, 12)
        yield f"{years}-{months + 1:02d}"


@_silent
def families(incomplete: str) -> Iterator[str]:
    """Model families, and the word for all of them."""
    yield from _families()
    yield BOTH


@_silent
def bases(incomplete: str) -> Iterator[str]:
    """Base models: of all families, of one after `family=`."""
    before, comma, last = incomplete.rpartition(",")
    own, equals, _ = last.partition("=")
    for family in _families():
        if not equals:
            yield f"{before}{comma}{family}="
        if own == family or not (equals or comma):
            start = f"{before}{comma}{family}=" if equals else ""
            yield from (f"{start}{name}" for name in (*_bases(family), PUBLISHED))


def _universe(home: Home) -> dict[str, list[dict[str, str]]]:
    """The universe file unchecked, every value as text."""
    import yaml

    found = yaml.load(home.universe.read_text(encoding="utf-8"), yaml.BaseLoader)
    return dict(found)


def _families() -> list[str]:
    """Names of the families' packages; loading them would take a second."""
    folder = Path(__file__).parents[1] / "models"
    return sorted(file.parent.name for file in folder.glob("*/__init__.py"))


def _bases(family: str) -> list[str]:
    import importlib

    from retrain_assets.models.bases import listed_bases

    table = importlib.import_module(f"retrain_assets.models.{family}.bases").TABLE
    return [*table.built_in, *listed_bases(Home.find().checkpoints, family)]


def spread_words() -> None:
    """Repeat a flag before each of its values in what the shell tells of the line so far.

    So the second symbol of `--stocks A B` is completed like the first. Does nothing unless a
    shell asks.
    """
    if not os.environ.get(ASKED, "").startswith("complete"):
        return
    try:
        if "COMP_WORDS" in os.environ:
            words = shlex.split(os.environ["COMP_WORDS"])
            place = int(os.environ["COMP_CWORD"])
            told = _spread([*words[:place], *(words[place : place + 1] or [""])])
            os.environ["COMP_WORDS"] = shlex.join(told)
            os.environ["COMP_CWORD"] = str(len(told) - 1)
        elif line := os.environ.get("_TYPER_COMPLETE_ARGS"):
            last = [""] if re.search(r"\s$", line) else []
            *told, incomplete = _spread([*shlex.split(line), *last])
            os.environ["_TYPER_COMPLETE_ARGS"] = f"{shlex.join(told)} {incomplete}"
    except ValueError:  # an open quote: what is inside is no symbol
        return


def _spread(words: Sequence[str]) -> list[str]:
    """The words with a flag of `REPEATED` before each of its values, the last word included."""
    spread: list[str] = []
    taking = ""
    for word in words:
        if word.startswith("-"):
            taking = word if word in REPEATED else ""
        elif taking and spread[-1] != taking:
            spread.append(taking)
        spread.append(word)
    return spread
