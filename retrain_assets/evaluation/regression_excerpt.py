"""The part of a month's regression analysis that is about some of its stocks and families."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from retrain_assets.evaluation.asset_names import family_of


def excerpt(
    analysis: Mapping[str, Any], symbols: Collection[str], of_families: Collection[str]
) -> dict[str, Any]:
    """The analysis with the rows of these stocks and model families alone.

    analysis: of `regression.regression_analysis`. What belongs to no family, such as a comparison
    that is missing, stays. p-values, levels and `summary` are those of the month: a stock is not
    surer to be worse for being looked at alone. Commands are those of the rows that are left.
    """

    def wanted(row: Mapping[str, Any]) -> bool:
        own = row.get("family") or family_of(str(row.get("asset", "")))
        return row["symbol"] in symbols and (own is None or own in of_families)

    lists = ("regressions", "failures", "stale", "vanished", "recommendations")
    kept = {name: [row for row in analysis[name] if wanted(row)] for name in lists}
    missing = [_missing(row, of_families) for row in analysis["missing"] if wanted(row)]
    summary = analysis["summary"]
    left = [symbol for symbol in summary["not_compared"] if symbol in symbols]
    return {
        **analysis,
        **kept,
        "missing": [row for row in missing if row["assets"]],
        "commands": _commands(kept["recommendations"]),
        "summary": {**summary, "not_compared": left},
    }


def _missing(row: Mapping[str, Any], of_families: Collection[str]) -> dict[str, Any]:
    assets = [a for a in row["assets"] if (family_of(a) or "") in ("", *of_families)]
    return {**row, "assets": assets}


def _commands(recommendations: list[dict[str, Any]]) -> list[str]:
    """One command for all stocks that need the same, in the order of the recommendations."""
    together: dict[str, list[str]] = {}
    for row in recommendations:
        if row["command"] is not None:
            form = row["command"].replace(f"--stocks {row['symbol']} ", "--stocks {} ", 1)
            together.setdefault(form, []).append(row["symbol"])
    return [
        form.replace("{}", " ".join(dict.fromkeys(symbols)), 1)
        for form, symbols in together.items()
    ]
