"""Which results no longer fit what they were made of, told from their records."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from retrain_assets import __version__
from retrain_assets.defs.staleness import OTHER_BARS, expected, outdated, stale

BARS = "a" * 64


def adapter(digest: str = "d1", **changes: Any) -> dict[str, Any]:
    versions = {"retrain_assets": __version__, "python": platform.python_version()}
    known = {"digest": digest, "base": "nano", "bars_hash": BARS, "versions": versions}
    return known | {"metrics": {"rung": None}} | changes


def version(**changes: Any) -> dict[str, Any]:
    return {"family": "kronos", "adapter": adapter(**changes)}


def records(**changes: Any) -> dict[str, dict[str, Any]]:
    """A stock of which everything fits, with some records in the place of others."""
    found = {
        "kronos_adapter": adapter(),
        "kronos_params": {"adapter": "d1", "bars_hash": BARS},
        "comparison": {"bars_hash": BARS, "candidates": {"kronos": {"version": version()}}},
        "champion": {"final": True, "families": {"kronos": {"candidate": version()}}},
    }
    return found | changes


def why(found: dict[str, dict[str, Any]], **bases: str) -> dict[str, str]:
    return stale(found, BARS) | outdated(found, bases)


def test_what_fits_is_neither_stale_nor_outdated() -> None:
    assert why(records(), kronos="nano") == {}


def test_other_bars_make_all_stale_that_saw_them() -> None:
    found = stale(records(), "b" * 64)
    assert found == dict.fromkeys(("kronos_adapter", "kronos_params", "comparison"), OTHER_BARS)


def test_another_adapter_makes_search_and_comparison_stale() -> None:
    found = why(records(kronos_adapter=adapter("d2")))
    assert found == {
        "kronos_params": "searched with another adapter",
        "comparison": "compared another kronos adapter",
    }


def test_a_refined_candidate_is_no_other_adapter() -> None:
    refined = version(digest="d9", metrics={"rung": "rank"})
    compared = {"bars_hash": BARS, "candidates": {"kronos": {"version": refined}}}
    decided = {"final": True, "families": {"kronos": {"candidate": refined}}}
    assert why(records(comparison=compared, champion=decided)) == {}


@pytest.mark.parametrize("base", ["small", "published", "nano"])
def test_another_base_in_the_universe_outdates_an_adapter(base: str) -> None:
    told = {"kronos_adapter": "trained on nano, universe.yaml names small"}
    assert why(records(), kronos=base) == (told if base == "small" else {})


def test_another_version_outdates_what_it_made() -> None:
    old = adapter(versions={"retrain_assets": "0.0.1", "python": platform.python_version()})
    assert why(records(kronos_adapter=old)) == {
        "kronos_adapter": f"made with retrain_assets 0.0.1, now {__version__}"
    }


def test_a_new_comparison_outdates_a_decision_unless_it_was_put_back() -> None:
    other = {"bars_hash": BARS, "candidates": {"kronos": {"version": version(base="small")}}}
    told = "decided on another kronos candidate than was compared"
    assert why(records(comparison=other)) == {"champion": told}
    champion = records()["champion"]
    for settled in ({"rolled_back_to": "2023-06"}, {"final": False}):
        assert why(records(comparison=other, champion=champion | settled)) == {}


def test_a_stock_should_have_what_its_families_make() -> None:
    assert expected(records()) == ["kronos_adapter", "kronos_params"]
    assert {"toto_adapter", "toto_params", "kronos_params"} <= set(expected({}))
