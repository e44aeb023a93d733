"""The table of decisions in the terminal."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from retrain_assets.evaluation.terminal_tables import render_decisions


def state(*, promote: bool, reason: str) -> dict[str, Any]:
    return {"decision": {"promote": promote, "reason": reason}}


def printed(*records: dict[str, Any]) -> str:
    file = io.StringIO()
    Console(file=file, width=100).print(render_decisions(records))
    return file.getvalue()


def record(symbol: str, *, live: bool) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "live": live,
        "families": {
            "one": state(promote=True, reason="it errs 9 % less"),
            "two": state(promote=False, reason="it errs 3 % more"),
        },
        "pointer": {"to": "one", **state(promote=True, reason="it errs 4 % less")},
    }


def test_each_decision_has_a_row_and_its_reason() -> None:
    lines = printed(record("AAA", live=True)).splitlines()
    rows = [line.split(maxsplit=2) for line in lines if "errs" in line]
    assert rows[0] == ["AAA", "one", "promoted        it errs 9 % less"]
    assert rows[1][0] == "two"
    assert "champion stays" in lines[3]
    assert "in production" in lines[4]
    assert " one " in lines[4]


def test_what_is_not_live_stands_in_brackets() -> None:
    assert "(one)" in printed(record("AAA", live=False))
    assert "(one)" not in printed(record("AAA", live=True))


def test_it_fits_a_terminal() -> None:
    long = record("LONGSYMBOL", live=True)
    long["pointer"]["decision"]["reason"] = "which may be luck: " + "words " * 60
    assert max(map(len, printed(long).splitlines())) <= 100
