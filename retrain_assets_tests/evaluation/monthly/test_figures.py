"""The pictures of the monthly report: what they draw, and their words."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from retrain_assets.evaluation.monthly import figures
from retrain_assets.evaluation.monthly.drawing import (
    Picture,
    blank,
    picture,
    plain,
    standing_alone,
)
from retrain_assets.evaluation.monthly.facts import MonthFacts
from retrain_assets_tests.evaluation.monthly.made import MONTH, MONTHS, month_of, record_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def facts() -> MonthFacts:
    return month_of([record_of("AAA"), record_of("BBB")], months=MONTHS)


def every(facts: MonthFacts) -> list[Picture]:
    found = [figures.skill_by_stock(facts), figures.skill_over_months(facts)]
    for symbol in facts.symbols:
        found += [figures.forecast(facts, symbol), figures.learning(facts, symbol)]
    assert None not in found
    return [one for one in found if one is not None]


@pytest.fixture(scope="module")
def pictures(facts: MonthFacts) -> list[Picture]:
    return every(facts)


def test_each_is_an_image_with_a_name_and_words(pictures: list[Picture]) -> None:
    for one in pictures:
        root = ElementTree.fromstring(one.svg)
        assert root.get("role") == "img"
        ids = {node.get("id"): node.text for node in root}
        named = [ids[name] for name in root.get("aria-labelledby", "").split()]
        assert named == [one.title, one.text]
        assert one.text
        assert root.get("width") is None  # as wide as the page has room for
        assert root.get("viewBox")


def test_one_that_stands_alone_has_a_size_and_needs_no_page(pictures: list[Picture]) -> None:
    for one in pictures:
        alone = standing_alone(one)
        root = ElementTree.fromstring(alone)
        assert root.tag == f"{SVG}svg"
        assert int(root.get("width", 0)) > int(root.get("height", 0)) > 0
        assert not re.search(r"var\(|currentColor", alone)


def test_colours_are_the_pages_own(pictures: list[Picture]) -> None:
    for one in pictures:
        assert not re.findall(r"#[0-9a-f]{6}\b", one.svg)
        assert "var(--faint)" in one.svg
        assert "var(--series-1)" in one.svg


def test_nothing_in_them_is_shared_and_they_ask_for_nothing(pictures: list[Picture]) -> None:
    ids = [name for one in pictures for name in re.findall(r' id="([^"]+)"', one.svg)]
    assert len(ids) == len(set(ids))
    for one in pictures:
        own = set(re.findall(r' id="([^"]+)"', one.svg))
        used = re.findall(r'(?:href="#|url\(#)([^")]+)', one.svg)
        assert used
        assert set(used) <= own
        assert "<style" not in one.svg
        assert "<metadata" not in one.svg
        assert not re.findall(r'href="(?!#)', one.svg)


def test_skill_is_told_in_words_too(facts: MonthFacts) -> None:
    drawn = figures.skill_by_stock(facts)
    assert drawn is not None
    for row in facts.comparisons["AAA"]["scores"]:
        if (row["segment"], row["scope"], row["candidate"]) == ("test", "holdout", "toto.chosen"):
            assert f"toto {100 * row['skill']:+.1f} % on the test" in drawn.text


def test_skill_over_months_needs_two_of_them() -> None:
    one, two = month_of([record_of("AAA")]), month_of([record_of("AAA")], months=["2023-07"])
    assert figures.skill_over_months(one) is None
    drawn = figures.skill_over_months(two)
    assert drawn is not None
    assert drawn.text.startswith("2023-07 to 2023-08: kronos ")


def test_areas_appear_with_the_sixth_month() -> None:
    five = month_of([record_of("AAA")], months=MONTHS[-4:])
    six = month_of([record_of("AAA")], months=MONTHS[-5:])
    few, enough = (figures.skill_over_months(facts) for facts in (five, six))
    assert few is not None
    assert enough is not None
    assert "FillBetween" not in few.svg
    assert enough.svg.count('id="skill-by-month-FillBetween') == 2


def test_a_forecast_is_drawn_from_each_origin(facts: MonthFacts) -> None:
    drawn = figures.forecast(facts, "AAA")
    assert drawn is not None
    assert drawn.text.startswith("3 forecasts of 7 sessions against the closes; skill over naive: ")
    assert drawn.svg.count('id="fan-AAA-FillBetween') == 6  # of two families


def test_what_is_not_stored_is_not_drawn() -> None:
    nothing = MonthFacts(MONTH)
    assert figures.skill_by_stock(nothing) is None
    assert figures.skill_over_months(nothing) is None
    assert figures.forecast(nothing, "AAA") is None
    assert figures.learning(nothing, "AAA") is None


def test_symbols_with_dots_and_dashes_make_ids_of_their_own() -> None:
    slugs = [figures.slug(symbol) for symbol in ("BRK.B", "BRK-B", "BRKB", "ADA-USD")]
    assert len(set(slugs)) == 4
    assert all(re.fullmatch(r"\w+", slug) for slug in slugs)


def test_words_in_a_picture_are_escaped() -> None:
    figure = blank(2, 1, (0.3, 0.3, 0.1, 0.1))
    plain(figure.add_subplot(xlabel="<b>"))
    drawn = picture(figure, id="one", title="<script>", text='"&"')
    root = ElementTree.fromstring(drawn.svg)
    assert [node.text for node in root][:2] == ["<script>", '"&"']
    assert "<script>" not in drawn.svg
    assert "<b>" not in drawn.svg
