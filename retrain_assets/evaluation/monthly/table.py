"""What a table of the report is: columns, and rows gathered under what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "good", "bad"]


@dataclass(frozen=True)
class Cell:
    """text: what it says. more: in smaller letters below. lines: further lines, one below another.

    tone: whether that is good or bad, which the text says as well. links:
    addresses by what they are called; only those of web pages become links.
    """

    text: str = ""
    more: str = ""
    tone: Tone = ""
    lines: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Column:
    """heading: of the column. number: right-aligned. wide: text that needs room."""

    heading: str
    number: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Group:
    """Rows about one thing, such as a stock; its name heads the first of them."""

    name: str
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Table:
    """id: unique on the page. caption: what it shows, in one line. notes: how to read it."""

    id: str
    caption: str
    columns: Sequence[Column]
    groups: Sequence[Group]
    notes: Sequence[str] = field(default_factory=tuple)


def numbers(*headings: str) -> list[Column]:
    """Columns of numbers."""
    return [Column(heading, number=True) for heading in headings]


NONE = "-"
"""What stands where there is no value."""


def told(value: float | None, form: str = ".2f", factor: float = 1.0) -> str:
    """A value for a cell, a dash where there is none; what rounds to zero has no sign."""
    if value is None:
        return NONE
    text = format(factor * value, form)
    return text if float(text) else text.lstrip("+-")


def percent(share: float | None) -> str:
    """A share as a signed percentage: `+1.3`."""
    return told(share, "+.1f", 100)


def tone_of(value: float | None) -> Tone:
    """Good above 0, bad below."""
    return "" if not value else "good" if value > 0 else "bad"
