"""The three sentences of a month: what they say of it, in every case that a month can be."""

from __future__ import annotations

from typing import Any

import pytest

from retrain_assets.evaluation.monthly.facts import MonthFacts
from retrain_assets.evaluation.monthly.sentences import joined, sentences, some, verdict
from retrain_assets.evaluation.regression import regression_analysis
from retrain_assets_tests.evaluation.monthly.made import (
    MONTH,
    MONTHS,
    decided,
    gaining,
    live,
    month_of,
    record_of,
)

CALM = regression_analysis(MONTH, [])
"""An analysis that found nothing."""


def texts(facts: MonthFacts) -> tuple[str, str, str]:
    """The three sentences."""
    first, second, third = (sentence.text for sentence in sentences(facts))
    return first, second, third


def figures(facts: MonthFacts) -> list[str]:
    return [f"{one.figure} {one.of}" for one in sentences(facts)]


def test_a_month_of_which_nothing_is_known() -> None:
    command = f"retrain analyze --month {MONTH}"
    assert texts(MonthFacts(MONTH)) == (
        "No stock has any record of this month, so nothing is known of its errors.",
        "Nothing was decided in this month, so production is what it was before.",
        f"Whether anything got worse was not looked at: begin with `{command}`.",
    )
    assert figures(MonthFacts(MONTH)) == ["0 of 0 compared", "0 changes", "? not looked at"]


def test_all_stocks_failed() -> None:
    failed = {"failures": {"baseline_metrics": "needs 316 bars"}}
    one = month_of([], facts={"AAA": failed})
    first, _, last = texts(one)
    assert first == "The one stock was not compared, so nothing is known of its errors."
    assert last == f"AAA failed; begin with `retrain run --stocks AAA --month {MONTH}`."
    both = month_of([], facts={"AAA": failed, "BBB": failed})
    first, _, last = texts(both)
    assert first.startswith("None of 2 stocks was compared")
    assert last == f"AAA and BBB failed; begin with `retrain run --stocks AAA BBB --month {MONTH}`."


def test_one_stock_is_told_in_the_singular() -> None:
    facts = month_of([record_of("AAA")], analysis=CALM)
    first, second, last = texts(facts)
    assert first.startswith(
        "1 stock was compared: on the month's test kronos erred no less than naive and toto erred "
        "no less than naive; pooled over this month alone, skill over naive is kronos "
    )
    assert first.endswith("too few months for an interval (6 are needed).")
    assert second == (
        "Nothing new went into production, because nothing errs less than what is there; now in "
        "production: naive for 1 stock."
    )
    assert last == "Nothing got worse, failed or is stale; there is nothing to do."


def test_the_skill_is_that_of_the_statistics_with_its_interval() -> None:
    facts = month_of([record_of("AAA"), record_of("BBB")], months=MONTHS)
    pooled = facts.statistics["pooled_to_date"]["kronos.chosen"]
    low, high = (100 * pooled[end] for end in ("skill_low", "skill_high"))
    told = f"kronos {100 * pooled['skill']:+.1f} % (95 % interval {low:+.1f} to {high:+.1f})"
    first, _, _ = texts(facts)
    assert f"pooled over 9 months, skill over naive is {told} and toto " in first
    assert "2 stocks were compared: " in first
    assert "kronos erred less than naive on 1 of 2 and toto on 1 of 2, none of it beyond" in first


def test_what_went_into_production_and_why_the_rest_did_not() -> None:
    facts = month_of([gaining(record_of("AAA"), "toto"), record_of("BBB")], analysis=CALM)
    first, second, _ = texts(facts)
    assert "toto on 2 of 2, beyond chance for AAA; " in first
    assert second == (
        "Toto in place of naive went into production on evidence beyond luck for AAA; elsewhere "
        "nothing changed, because the lead may be luck; 1 family's champion was replaced (AAA "
        "toto); now in production: toto for 1 stock and naive for 1 stock."
    )
    assert figures(facts)[:2] == ["1 of 2 surely better than naive", "1 change"]


def test_a_winner_among_many_stocks_may_be_luck() -> None:
    record = gaining(record_of("AAA"), "toto")
    record["p_values"]["toto.chosen"] = 0.04  # enough for one stock, too little for two
    facts = month_of([record, record_of("BBB")])
    assert facts.sure == []
    assert "none of it beyond chance once all stocks are counted" in texts(facts)[0]


def test_a_month_that_is_not_over_decides_nothing() -> None:
    record = record_of("AAA", provisional=True)
    champions = {"AAA": decided(record, final=False, live=False)}
    facts = month_of([record], champions=champions, bars={}, months=MONTHS)
    first, second, _ = texts(facts)
    assert first.startswith("1 stock was compared so far, for the month is not over: ")
    assert second == (
        "The month is not over, so nothing was decided and production stays: naive for 1 stock."
    )


def test_production_follows_the_champion_of_the_family_it_points_to() -> None:
    record = gaining(record_of("AAA"), "toto")
    champion = decided(record)
    # Before, production pointed to the base of the very family whose champion was replaced.
    champion["pointer"]["incumbent"] = champion["families"]["toto"]["incumbent"]
    champion["pointer"]["decision"] |= {"promote": False, "reason": "it is in production already"}
    told = sentences(month_of([record], champions={"AAA": champion}))[1]
    assert told.figure == "1"
    assert told.text.startswith(
        "A newer toto went into production on evidence beyond luck for AAA; 1 family's champion"
    )


def test_decisions_for_the_record_alone_are_said_to_be() -> None:
    records = [gaining(record_of("AAA"), "toto"), record_of("BBB")]
    aside = {record["symbol"]: decided(record, live=False) for record in records}
    told = sentences(month_of(records, champions=aside))[1]
    assert told.figure == "0"
    assert told.text.startswith("Toto in place of naive would have gone into production on evid")
    assert told.text.endswith(
        "in production would be: toto for 1 stock and naive for 1 stock; the decisions were for "
        "the record alone."
    )
    aside["BBB"]["live"] = True
    assert texts(month_of(records, champions=aside))[1].endswith(
        "now in production: naive for 1 stock; the decisions of AAA were for the record alone."
    )


def test_a_rollback_is_a_change() -> None:
    back = decided(gaining(record_of("AAA"), "toto")) | {"rolled_back_to": "2023-06"}
    facts = month_of([record_of("AAA")], champions={"AAA": back})
    assert sentences(facts)[1].figure == "1"
    assert texts(facts)[1].startswith("What 2023-06 decided was put back by hand for AAA; ")


def test_every_kind_of_trouble_is_named_once() -> None:
    facts = month_of(
        [record_of("AAA"), record_of("BBB")],
        live={"AAA": live("AAA", drifted=True), "BBB": live("BBB")},
        facts={
            "AAA": {"stale": {"kronos_params": "searched with another adapter"}},
            "CCC": {"failures": {"run": "died"}, "missing": ["comparison"]},
            "DDD": {"missing": ["comparison", "champion"]},
            "EEE": {"vanished": "no bars of this month"},
        },
    )
    last = texts(facts)[2]
    assert last.startswith(
        "CCC failed, BBB looks worse (maybe by chance), AAA has drifted in production, DDD is "
        "incomplete, AAA is stale and EEE is gone; begin with `retrain run --stocks CCC DDD "
    )
    assert last.endswith("then 1 more command below.")
    assert sentences(facts)[2].figure == "2"


def test_what_has_no_remedy_is_said_to_have_none() -> None:
    facts = month_of([record_of("AAA")], facts={"EEE": {"vanished": "no bars"}})
    assert texts(facts)[2] == "EEE is gone; no command would help."


def test_a_comparison_without_models_is_told() -> None:
    record = record_of("AAA", candidates={})
    facts = month_of([record], champions={}, analysis=CALM, adapters={}, searches={})
    assert texts(facts)[0] == (
        "1 stock was compared: no model took part; no skill over naive can be told."
    )


NUMBERS = {
    "origins": 26,
    "selection_gain_pct": 5.0,
    "sign_p": 0.001,
    "spa_p": 0.001,
    "level": 0.002,
}
RULES = {"min_origins": 8, "smallest_gain": 0.0}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("test", {}),
        ("few", {"origins": 7}),
        ("no lead", {"selection_gain_pct": -1.0}),
        ("no lead", {"selection_gain_pct": None}),
        ("luck", {"sign_p": 0.5, "spa_p": None}),
        ("luck", {"spa_p": 0.5}),
    ],
)
def test_a_refusal_has_the_reason_of_its_numbers(kind: str, changes: dict[str, Any]) -> None:
    decision = {"promote": False, "candidate": "a", "incumbent": "b", "rules": RULES}
    assert verdict(decision | {"numbers": NUMBERS | changes}) == kind


def test_other_answers_have_theirs() -> None:
    decision = {"promote": False, "candidate": "a", "incumbent": "b", "rules": RULES, "numbers": {}}
    assert verdict(decision) == "other"
    assert verdict(decision | {"incumbent": "a"}) == "same"
    assert verdict(decision | {"promote": True}) == "promoted"
    small = {"numbers": NUMBERS, "rules": RULES | {"smallest_gain": 0.1}}
    assert verdict(decision | small) == "small"


def test_lists_in_words() -> None:
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert some(["A", "B", "C", "D"]) == "A, B, C and D"
    assert some(["A", "B", "C", "D", "E"]) == "A, B, C and 2 more"


def test_the_sentences_are_the_same_whatever_the_order() -> None:
    records = [record_of("AAA"), record_of("BBB")]
    facts, other = month_of(records), month_of(records[::-1])
    assert texts(facts) == texts(other)
