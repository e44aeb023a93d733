"""The tables of the monthly report hold what the records hold, and nothing else."""

from __future__ import annotations

import pytest

from retrain_assets.evaluation.champions import column_losses
from retrain_assets.evaluation.monthly import error_tables, provenance
from retrain_assets.evaluation.monthly.facts import SeenBars
from retrain_assets.evaluation.monthly.table import NONE, Cell, Table, percent, told
from retrain_assets.evaluation.pooling import skill
from retrain_assets.evaluation.stock_record import scored
from retrain_assets_tests.evaluation.monthly.made import (
    decided,
    gaining,
    live,
    month_of,
    record_of,
)


def rows(table: Table, name: str) -> list[dict[str, Cell]]:
    """One thing's rows, by heading."""
    (group,) = (group for group in table.groups if group.name == name)
    headings = [column.heading for column in table.columns[1:]]
    for row in group.rows:
        assert len(row) == len(headings)
    return [dict(zip(headings, row, strict=True)) for row in group.rows]


def test_errors_are_those_of_the_comparison_with_their_skill() -> None:
    record = record_of("AAA")
    scores = scored(record, "test", "holdout")
    kronos, toto = rows(error_tables.errors_by_stock(month_of([record]), "holdout"), "AAA")
    assert kronos["naive"].text == f"{scores['naive']['mae_pct']:.2f}"
    assert toto["naive"].text == ""  # it is the stock's, told once
    for family, row in (("kronos", kronos), ("toto", toto)):
        assert row["model"].text == family
        for variant, heading in (("zero_shot", "zero-shot"), ("chosen", "chosen")):
            own = scores[f"{family}.{variant}"]
            assert row[heading].text == f"{own['mae_pct']:.2f}"
            assert row[heading].more == f"{100 * own['skill']:+.1f}"
            assert row[heading].tone == ("good" if own["skill"] > 0 else "bad")
    assert (kronos["winner"].text, toto["winner"].text) == ("tie", "")
    assert kronos["decision"].text == "stays"


def test_what_is_in_place_is_scored_as_the_comparison_scores() -> None:
    record = record_of("AAA")
    base = scored(record, "test", "holdout")["kronos.zero_shot"]
    found = error_tables.in_place(
        record, decided(record), "kronos"
    )  # the base is the first champion
    assert found is not None
    assert found["mae_pct"] == pytest.approx(base["mae_pct"], rel=1e-9)
    assert found["skill"] == pytest.approx(base["skill"], rel=1e-9)
    assert error_tables.in_place(record, None, "kronos") is None
    assert error_tables.in_place(record, decided(record, final=False), "kronos") is None


def test_a_winner_and_a_promotion_stand_in_their_familys_row() -> None:
    facts = month_of([gaining(record_of("AAA"), "toto")])
    kronos, toto = rows(error_tables.errors_by_stock(facts, "holdout"), "AAA")
    assert (kronos["winner"].text, toto["winner"].text) == ("", "chosen")
    assert (kronos["decision"].text, toto["decision"].text) == ("stays", "promoted")
    verdict, *_, production = rows(error_tables.decisions(facts), "AAA")
    assert verdict["answer"].text == "toto.chosen"
    assert (production["about"].text, production["answer"].text) == ("in production", "toto")
    assert production["why"].text == facts.champions["AAA"]["pointer"]["decision"]["reason"]


def test_the_plans_horizon_has_a_table_of_its_own() -> None:
    record = record_of("AAA")
    kronos, _ = rows(error_tables.errors_by_stock(month_of([record]), "plan"), "AAA")
    assert kronos["ahead"].text == "16"
    own = scored(record, "test", "plan")["kronos.adapter"]
    assert kronos["adapter"].text == f"{own['mae_pct']:.2f}"


def test_pooled_skill_is_that_of_the_statistics() -> None:
    facts = month_of([record_of("AAA"), record_of("BBB")], months=["2023-06", "2023-07"])
    (row,) = rows(error_tables.pooled(facts), "toto.chosen")
    now = facts.statistics["pooled"]["toto.chosen"]
    to_date = facts.statistics["pooled_to_date"]["toto.chosen"]
    assert row["this month, %"].text == percent(now["skill"])
    assert row["to date, %"].text == percent(to_date["skill"])
    assert (row["months"].text, row["95 % interval"].text) == ("3", NONE)


def test_a_month_that_is_not_over_has_no_skill_to_date() -> None:
    facts = month_of([record_of("AAA", provisional=True)])
    (row,) = rows(error_tables.pooled(facts), "toto.chosen")
    assert row["this month, %"].text != NONE
    assert row["to date, %"].text == NONE


def test_the_live_record_goes_on_from_month_to_month() -> None:
    before, now = live("AAA"), live("AAA", drifted=True)
    facts = month_of([record_of("AAA")], live={"AAA": now}, live_before={"AAA": [before]})
    kronos, _, pointer = rows(error_tables.live(facts), "AAA")
    assert kronos["what"].text == "kronos champion"
    assert kronos["skill, %"].text == "-10.0"
    assert (pointer["what"].text, pointer["forecasts"].text) == ("kronos, in production", "6")
    assert pointer["since it was chosen"].text == now["drift"]["reason"]
    assert pointer["since it was chosen"].tone == "bad"
    assert kronos["since it was chosen"].text == ""


def test_a_live_record_without_forecasts_says_why() -> None:
    nothing = {"entries": {}, "reason": "nothing was decided", "drift": {"drifted": False}}
    facts = month_of([record_of("AAA")], live={"AAA": nothing})
    (row,) = rows(error_tables.live(facts), "AAA")
    assert row["since it was chosen"].text == "nothing was decided"


def test_chosen_parameters_stand_with_their_shrinkage() -> None:
    (kronos, _) = rows(provenance.parameters(month_of([record_of("AAA")])), "AAA")
    assert kronos["chosen"].text == "temperature 0.7, top_k off"
    assert (kronos["gain, %"].text, kronos["shrinkage"].text) == ("+4.0", "+1.5")


def test_failures_are_told_in_full_and_by_asset() -> None:
    facts = month_of(
        [record_of("AAA")],
        facts={
            "AAA": {"stale": {"kronos_params": "searched with another adapter"}},
            "BBB": {"failures": {"comparison": "it broke\nhere\nand there"}},
            "CCC": {"missing": ["comparison", "champion"]},
            "DDD": {"vanished": "no bars"},
        },
    )
    table = provenance.troubles(facts)
    assert [group.name for group in table.groups] == ["AAA", "BBB", "CCC", "DDD"]
    (broken,) = rows(table, "BBB")
    assert (broken["what"].text, broken["why"].text) == ("comparison", "it broke")
    assert list(broken["why"].lines) == ["here", "and there"]
    (missing,) = rows(table, "CCC")
    assert list(missing["what"].lines) == ["comparison", "champion"]


def test_regressions_stand_with_their_reasons() -> None:
    facts = month_of([record_of("AAA"), record_of("BBB")])
    (known,) = facts.found("regressions")
    (row,) = rows(provenance.regressions(facts), known["symbol"])
    assert row["now"].text == f"{known['optimized_mae_pct']:.2f}"
    assert row["finding"].text == "may be chance"
    assert list(row["what may explain it"].lines) == known["reasons"]


def test_bars_say_what_to_look_at() -> None:
    odd = SeenBars(150, "2023-01-26", "2023-08-28", True, "a.csv", ["missing sessions (1): x"])
    facts = month_of([record_of("AAA")], bars={"AAA": odd})
    (row,) = rows(provenance.bars(facts), "AAA")
    assert (row["bars"].text, row["last"].text, row["month"].text) == (
        "150",
        "2023-08-28",
        "not over",
    )
    assert list(row["to look at"].lines) == ["missing sessions (1): x"]
    assert facts.provisional


def test_libraries_that_differ_name_their_stocks() -> None:
    other = record_of("BBB", versions={"torch": "2.14.0"})
    facts = month_of([record_of("AAA"), other], adapters={})
    first, second = rows(provenance.libraries(facts), "torch")
    assert (first["version"].text, first["stocks"].text) == ("2.13.0", "AAA")
    assert (second["version"].text, second["stocks"].text) == ("2.14.0", "BBB")


def test_dates_bases_and_runs_are_there() -> None:
    facts = month_of([record_of("AAA")])
    kronos, _ = rows(provenance.splits(facts), "AAA")
    assert (kronos["train"].text, kronos["train"].more) == ("2023-01-01", "to 2023-01-28")
    assert (kronos["base"].text, kronos["base"].more) == ("nano", "kronos000000")
    (pages,) = rows(provenance.runs(facts), "AAA")
    assert pages["pages"].links == [("comparison", "http://127.0.0.1:3000/runs/AAA")]


def test_values_in_cells() -> None:
    assert told(None) == NONE
    assert percent(-0.0001) == "0.0"
    assert percent(0.123) == "+12.3"


def test_the_losses_of_the_made_records_are_the_tables() -> None:
    """What the other tests compare with: errors in a record agree with its losses."""
    record = record_of("AAA")
    losses = column_losses(record, "kronos.zero_shot")["test"]
    naive = column_losses(record, "naive")["test"]
    own = scored(record, "test", "holdout")["kronos.zero_shot"]
    assert skill(losses, naive) == pytest.approx(own["skill"], abs=0.05)
