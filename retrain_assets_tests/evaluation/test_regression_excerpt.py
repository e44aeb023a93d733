"""A part of a month's regression analysis: rows are left out, and nothing is computed anew."""

from __future__ import annotations

from typing import Any

from retrain_assets.evaluation.regression_excerpt import excerpt

BOTH = ("kronos", "toto")


def advice(symbol: str, family: str | None, action: str, options: str = "") -> dict[str, Any]:
    command = f"retrain {action} --stocks {symbol} --month 2023-08{options}"
    return {"symbol": symbol, "family": family, "action": action, "command": command}


def analysis() -> dict[str, Any]:
    recommendations = [
        advice("AAA", None, "run"),
        advice("BBB", None, "run"),
        advice("CCC", "toto", "refine", " --model-type toto"),
        {"symbol": "DDD", "family": None, "action": "none", "command": None},
    ]
    return {
        "month": "2023-08",
        "regressions": [{"symbol": "CCC", "family": f, "p_holm": 0.01} for f in BOTH],
        "failures": [
            {"symbol": "AAA", "asset": "comparison", "error": "why"},
            {"symbol": "BBB", "asset": "kronos_adapter", "error": "why"},
        ],
        "missing": [{"symbol": "AAA", "assets": ["toto_params", "champion"]}],
        "stale": [{"symbol": "BBB", "asset": "toto_params", "why": "other"}],
        "vanished": [{"symbol": "DDD", "why": "no bars"}],
        "recommendations": recommendations,
        "commands": ["retrain run --stocks AAA BBB --month 2023-08"],
        "summary": {"stocks": 4, "total_regressions": 2, "not_compared": ["AAA", "BBB", "DDD"]},
    }


def test_rows_of_other_stocks_and_families_are_left_out() -> None:
    found = excerpt(analysis(), {"AAA", "CCC"}, ["toto"])
    assert found["regressions"] == [{"symbol": "CCC", "family": "toto", "p_holm": 0.01}]
    assert found["failures"] == analysis()["failures"][:1]
    assert found["missing"] == [{"symbol": "AAA", "assets": ["toto_params", "champion"]}]
    assert (found["stale"], found["vanished"]) == ([], [])
    assert found["commands"] == [
        "retrain run --stocks AAA --month 2023-08",
        "retrain refine --stocks CCC --month 2023-08 --model-type toto",
    ]
    assert found["summary"] == {"stocks": 4, "total_regressions": 2, "not_compared": ["AAA"]}


def test_what_belongs_to_no_family_stays_and_the_others_assets_go() -> None:
    found = excerpt(analysis(), {"AAA", "BBB", "CCC", "DDD"}, ["kronos"])
    assert found["missing"] == [{"symbol": "AAA", "assets": ["champion"]}]
    assert found["failures"] == analysis()["failures"]
    assert (found["stale"], found["vanished"]) == ([], analysis()["vanished"])
    assert found["commands"] == ["retrain run --stocks AAA BBB --month 2023-08"]


def test_all_of_it_is_the_analysis_itself() -> None:
    whole = excerpt(analysis(), {"AAA", "BBB", "CCC", "DDD"}, BOTH)
    commands = [*analysis()["commands"], analysis()["recommendations"][2]["command"]]
    assert whole == analysis() | {"commands": commands}
