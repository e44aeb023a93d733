"""What was decided on stocks, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


def render_decisions(records: Sequence[Mapping[str, Any]]) -> Table:
    """Champion records as a table for a terminal of 100 columns.

    A row per stock and decision: of each family whether the candidate replaced the champion, then
    of the pointer whether production points elsewhere now, and why. `in production` stands in the
    pointer's row, in brackets where the month is not the stock's latest final one.
    """
    from rich.table import Table

    table = Table(title="Decisions", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("stock", "what", "answer"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", overflow="fold")
    for record in records:
        symbol = record["symbol"]
        for name, state in record["families"].items():
            answer = "promoted" if state["decision"]["promote"] else "champion stays"
            table.add_row(symbol, name, answer, state["decision"]["reason"])
            symbol = ""
        pointer = record["pointer"]
        to = pointer["to"] if record["live"] else f"({pointer['to']})"
        table.add_row(symbol, "in production", to, pointer["decision"]["reason"])
    return table
