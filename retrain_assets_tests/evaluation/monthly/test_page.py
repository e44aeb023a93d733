"""The report as a file: whole, escaped, without scripts or requests, the same every time."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from retrain_assets.evaluation.monthly.facts import MonthFacts, SeenBars
from retrain_assets.evaluation.monthly.page import markdown, page
from retrain_assets.evaluation.monthly.sentences import Sentence, sentences
from retrain_assets_tests.evaluation.monthly.made import (
    MONTH,
    MONTHS,
    decided,
    live,
    month_of,
    record_of,
    search,
)

EVIL = "<script>alert('x')</script> & \"more\""
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """What a page is made of: tags, ids, links, text; raises for tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def ids(self) -> list[str]:
        return [found for _, attrs in self.tags if (found := attrs.get("id"))]


@pytest.fixture(scope="module")
def facts() -> MonthFacts:
    return month_of([record_of("AAA"), record_of("BBB")], months=MONTHS)


@pytest.fixture(scope="module")
def text(facts: MonthFacts) -> str:
    return page(facts)


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_it_needs_nothing_else(text: str, outline: Outline) -> None:
    for tag in ("script", "link", "img", "iframe", "object"):
        assert outline.all(tag) == []
    assert not re.findall(r"url\((?!#)|@import|\bon\w+=", text)
    links = [str(attrs["href"]) for attrs in outline.all("a")]
    assert {link for link in links if not link.startswith("#")} == {
        "http://127.0.0.1:3000/runs/AAA",
        "http://127.0.0.1:3000/runs/BBB",
    }
    assert {link[1:] for link in links if link.startswith("#")} <= set(outline.ids())
    policy = outline.all("meta")[3]["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_everything_has_its_own_id(outline: Outline) -> None:
    assert len(outline.ids()) == len(set(outline.ids()))
    for _, attrs in outline.tags:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in outline.ids()


def test_the_sentences_come_first_and_all_sections_are_there(
    facts: MonthFacts, outline: Outline
) -> None:
    told = [one.text.replace("`", "") for one in sentences(facts)]
    told = [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in told]
    places = [outline.text.index(sentence) for sentence in told]
    assert places == sorted(places)
    assert places[-1] < outline.text.index("Skill over naive")
    sections = [attrs["id"] for attrs in outline.all("section")]
    assert sections == [
        *("summary", "to-do", "skill", "errors", "pooled", "decisions", "fans", "trouble"),
        *("record", "chosen", "training", "plan", "data", "made"),
    ]
    assert len(outline.all("svg")) == 2 + 2 * 2


def test_tables_can_be_reached_scrolled_and_read(outline: Outline) -> None:
    regions = [a for a in outline.all("div") if a.get("role") == "region"]
    assert len(regions) == len(outline.all("table")) == len(outline.all("caption")) >= 9
    assert all(region["tabindex"] == "0" for region in regions)
    assert {attrs.get("scope") for attrs in outline.all("th")} == {"col", "row", "rowgroup"}


def test_the_same_records_give_the_same_bytes(text: str) -> None:
    assert page(month_of([record_of("BBB"), record_of("AAA")], months=MONTHS)) == text


def test_what_comes_from_records_is_escaped() -> None:
    record = record_of("AAA", reason=EVIL, versions={EVIL: EVIL}, winner=EVIL)
    champion = decided(record)
    champion["pointer"]["decision"]["reason"] = EVIL
    champion["families"]["toto"]["decision"]["reason"] = EVIL
    searched = {"kronos": {"AAA": search() | {"chosen": {EVIL: 1}}}}
    spoken = live("AAA", drifted=True)
    spoken["drift"]["reason"] = EVIL
    facts = month_of(
        [record],
        champions={"AAA": champion},
        searches=searched,
        live={"AAA": spoken},
        bars={"AAA": SeenBars(1, EVIL, EVIL, False, EVIL, [EVIL])},
        pages={"AAA": {EVIL: "javascript:alert(1)"}},
        facts={"BBB": {"failures": {EVIL: f"first\n{EVIL}", "run": EVIL}, "vanished": None}},
    )
    outline = Outline(page(facts))
    assert outline.all("script") == []
    assert outline.text.count(EVIL) >= 12
    assert not [a for a in outline.all("a") if "javascript" in str(a["href"])]
    assert "javascript:alert(1)" in outline.text  # told, and no link


def test_an_empty_month_is_a_page_too() -> None:
    outline = Outline(page(MonthFacts(MONTH)))
    assert [attrs["id"] for attrs in outline.all("section")] == ["summary"]
    assert "No stock has any record of this month" in outline.text


def test_a_month_whose_stocks_all_failed_shows_why() -> None:
    facts = month_of([], facts={"AAA": {"failures": {"baseline_metrics": "needs 316 bars"}}})
    outline = Outline(page(facts))
    assert [a["id"] for a in outline.all("section")] == ["summary", "to-do", "trouble"]
    assert "needs 316 bars" in outline.text


def test_commands_stand_as_they_are_to_be_typed() -> None:
    facts = month_of([record_of("AAA")], facts={"BBB": {"missing": ["comparison"]}})
    text = page(facts)
    command = f"retrain run --stocks BBB --month {MONTH}"
    assert f'<pre tabindex="0" role="region" aria-label="Command 1"><code>{command}</code>' in text
    assert f"begin with <code>{command}</code>." in text


def test_a_provisional_month_says_so(outline: Outline) -> None:
    seen = {"AAA": SeenBars(500, "2021-09-01", f"{MONTH}-14", True)}
    running = Outline(page(month_of([record_of("AAA", provisional=True)], bars=seen)))
    assert "not over yet: provisional" in running.text
    assert "not over yet: provisional" not in outline.text
    assert f"as known at the close of {MONTH}-14" in running.text


def test_the_sentences_in_markdown() -> None:
    told = [Sentence("One", "1", "thing", "First."), Sentence("Two", "2", "things", "Second.")]
    assert markdown(told) == "- **One**: First.\n- **Two**: Second."


def test_many_stocks_stay_a_small_file(text: str) -> None:
    assert 24 / 2 * len(text.encode()) < 2_000_000  # the text is that of two
