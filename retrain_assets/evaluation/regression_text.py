"""A month's regression analysis as text for a terminal and for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retrain_assets.evaluation.remedies import SUSPECT, WORSE

WIDTH = 100


def render_analysis(analysis: Mapping[str, Any]) -> str:
    """The analysis as plain text of at most 100 columns, in the manner of the guide's output.

    analysis: of `regression.regression_analysis`. Commands that do not fit are continued with a
    backslash, so that they can be copied as they stand.
    """
    lines = [*_head(analysis), *_regressions(analysis), *_lists(analysis), *_advice(analysis)]
    return "\n".join(lines)


def _head(analysis: Mapping[str, Any]) -> Iterator[str]:
    summary = analysis["summary"]
    yield from _wrapped(
        f"Regression analysis of {analysis['month']}: {summary['stocks_compared']} of "
        f"{_count(summary['stocks'], 'stock')} compared, "
        f"{_count(summary['comparisons'], 'comparison')}"
    )
    if summary["note"]:
        yield from _wrapped(summary["note"][0].upper() + summary["note"][1:] + ".")
    elif summary["not_compared"]:
        yield from _wrapped(f"Not compared: {', '.join(summary['not_compared'])}")


def _regressions(analysis: Mapping[str, Any]) -> Iterator[str]:
    if not analysis["summary"]["comparisons"]:
        return
    rows = analysis["regressions"]
    worse = [row for row in rows if row["status"] == WORSE]
    suspect = [row for row in rows if row["status"] == SUSPECT]
    stocks = _count(len({row["symbol"] for row in worse}), "stock")
    yield ""
    yield from _wrapped(
        f"Found {stocks} with worse performance"
        + (f" (one-sided p below {analysis['level']:g} after Holm's adjustment):" if worse else ".")
    )
    yield from _rows(worse)
    if suspect:
        stocks = _count(len({row["symbol"] for row in suspect}), "stock")
        yield ""
        yield from _wrapped(
            f"{stocks} to look at: more error on selection and test, which may be chance:"
        )
        yield from _rows(suspect)


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    width = max((len(row["symbol"]) for row in rows), default=0)
    for row in rows:
        yield ""
        head = f"  {row['symbol']:<{width}} - "
        share = row["regression_relative_pct"]
        rivals = " = ".join([row["against"], *row["same_as"]])
        yield from _wrapped(
            f"{head}{rivals}: {row['baseline_mae_pct']:.2f}% → candidate: "
            f"{row['optimized_mae_pct']:.2f}% ({row['regression_pct']:+.2f} points"
            + ("" if share is None else f", {share:+.1f}%")
            + f") [{row['best_model']}]",
            len(head),
        )
        yield from _wrapped(" " * len(head) + _evidence(row), len(head))
        for reason in row["reasons"]:
            yield from _wrapped(f"{'':{len(head)}}* {reason}", len(head) + 2)


def _evidence(row: Mapping[str, Any]) -> str:
    """What the figures rest on: origins, p, the test, and what was decided."""
    test, ahead = row["test_mae_pct"], row["horizon"]
    told = [
        _count(row["origins"], "origin") + (f" of {ahead} sessions" if ahead else ""),
        _p_value(row["p_holm"]),
    ]
    if test["origins"]:
        told.append(
            f"test ({_count(test['origins'], 'origin')}) {test['baseline']:.2f}% → "
            f"{test['optimized']:.2f}%"
        )
    if looked := row["confirmation"]:
        change = "" if looked["change_pct"] is None else f" {looked['change_pct']:+.1f}%"
        told.append(f"longer holdout ({looked['holdout_days']} sessions){change}")
    if row["promoted"] is not None:
        told.append("promoted all the same" if row["promoted"] else "not promoted")
    return ", ".join(told)


def _p_value(value: float | None) -> str:
    if value is None:
        return "no p"
    return "p below 0.001" if value < 0.001 else f"p {value:.2g}"


def _lists(analysis: Mapping[str, Any]) -> Iterator[str]:
    """What could not be judged: failed, missing, stale, vanished."""
    entries = {
        "Failed": [(f"{e['symbol']} {e['asset']}", e["error"]) for e in analysis["failures"]],
        "Missing": [(e["symbol"], ", ".join(e["assets"])) for e in analysis["missing"]],
        "Stale": [(f"{e['symbol']} {e['asset']}", e["why"]) for e in analysis["stale"]],
        "Gone": [(e["symbol"], e["why"]) for e in analysis["vanished"]],
    }
    for title, found in entries.items():
        if found:
            yield from ("", f"{title}:")
        for what, text in found:
            first, *others = text.splitlines() or [""]
            yield from _wrapped(f"  {what}: {first}", 4)
            for line in others:
                yield from _wrapped(f"    {line}", 4)


def _advice(analysis: Mapping[str, Any]) -> Iterator[str]:
    if analysis["commands"]:
        yield from ("", "Recommendations:")
    for command in analysis["commands"]:
        parts = textwrap.wrap(command, WIDTH - 6, break_long_words=False, break_on_hyphens=False)
        for place, part in enumerate(parts):
            end = " \\" if place + 1 < len(parts) else ""
            yield f"{'    ' if place else '  '}{part}{end}"
    reasons = [row for row in analysis["recommendations"] if row["action"] != "run"]
    if reasons:
        yield ""
    for row in reasons:
        what = " ".join(filter(None, (row["symbol"], row["family"])))
        yield from _wrapped(f"  {what}: {row['reason']}", 4)


def _wrapped(text: str, indent: int = 0) -> list[str]:
    """A paragraph in lines of at most 100 columns, all but the first indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
