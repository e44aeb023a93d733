"""The report as one HTML file that needs nothing else: no script, no request, the same bytes."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrain_assets.evaluation.monthly import error_tables, figures, provenance
from retrain_assets.evaluation.monthly.facts import MonthFacts
from retrain_assets.evaluation.monthly.sentences import Sentence, sentences

if TYPE_CHECKING:
    from markupsafe import Markup

    from retrain_assets.evaluation.monthly.drawing import Picture
    from retrain_assets.evaluation.monthly.table import Table

TEMPLATE = "page.html.j2"
_SKILL = (
    "By how many % a model errs less than the last close, repeated: above 0 is better than that. "
    "Stocks of one month move together, so it takes months to tell skill from luck."
)
_FANS = (
    "The month's test forecasts: a coloured line is the mean, the area around it holds 80 % of "
    "what was forecast, and the line in the colour of the text is the close."
)
_TRAINING = (
    "Validation loss by epoch in colour, dashed where the base stands; training loss in grey."
)
_WEB = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Section:
    """id, title: of the section. lead: what it is about. large, small: pictures. legend: whether
    the colours of the families are explained. tables: those that have rows are shown.
    """

    id: str
    title: str
    lead: str = ""
    large: Sequence[Picture] = ()
    small: Sequence[Picture] = ()
    legend: Sequence[str] = ()
    tables: Sequence[Table] = ()


def page(facts: MonthFacts) -> str:
    """The report of a month as HTML.

    The same facts give the same text. What comes from records is escaped: symbols, reasons, errors.
    """
    text: str = (
        _environment()
        .get_template(TEMPLATE)
        .render(
            facts=facts,
            name=_name(facts.month),
            cut=_cut(facts),
            sentences=sentences(facts),
            commands=list((facts.analysis or {}).get("commands", [])),
            advice=[r for r in facts.found("recommendations") if r["action"] != "run"],
            sections=[section for section in _sections(facts) if _holds_anything(section)],
            series={family: place % 4 + 1 for place, family in enumerate(facts.families)},
        )
    )
    return text


def markdown(told: Sequence[Sentence]) -> str:
    """The three sentences for a page of Dagster's."""
    return "\n".join(f"- **{one.topic}**: {one.text}" for one in told)


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("retrain_assets.evaluation", "monthly"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["commands"] = _commands
    made.tests["web"] = lambda address: bool(_WEB.match(address))
    return made


def _commands(text: str) -> Markup:
    """Text in which what stands between backticks is set as code; all of it escaped.

    A number and its percent sign stay on one line.
    """
    from markupsafe import Markup, escape

    text = text.replace(" %", "\N{NO-BREAK SPACE}%")
    parts = [
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _name(month: str) -> str:
    year, number = month.split("-")
    return f"{calendar.month_name[int(number)]} {year}"


def _cut(facts: MonthFacts) -> str:
    """The last session that any stock saw."""
    seen = [bars.last for bars in facts.bars.values()]
    return max(seen or [record["cut"] for record in facts.records], default="")


def _sections(facts: MonthFacts) -> Iterator[Section]:
    """All there could be, in the order in which they matter."""
    compared = bool(facts.records)
    fans, curves = _by_stock(facts, figures.forecast), _by_stock(facts, figures.learning)
    yield Section(
        "skill",
        "Skill over naive",
        _SKILL,
        large=_there(figures.skill_by_stock(facts), figures.skill_over_months(facts)),
        legend=facts.families,
    )
    if compared:
        yield Section(
            "errors", "Errors by stock", tables=[error_tables.errors_by_stock(facts, "holdout")]
        )
        yield Section("pooled", "All stocks together", tables=[error_tables.pooled(facts)])
    yield Section("decisions", "Decisions", tables=[error_tables.decisions(facts)])
    yield Section("fans", "Forecasts and closes", _FANS, small=fans, legend=facts.families)
    trouble = [provenance.troubles(facts), provenance.regressions(facts)]
    yield Section("trouble", "Regressions and failures", tables=trouble)
    yield Section("record", "Live record", tables=[error_tables.live(facts)])
    yield Section("chosen", "Parameters", tables=[provenance.parameters(facts)])
    yield Section("training", "Training", _TRAINING, small=curves, legend=facts.families)
    if compared:
        tables = [error_tables.errors_by_stock(facts, "plan")]
        yield Section("plan", "At the plan's horizon", tables=tables)
    yield Section("data", "Data", tables=[provenance.bars(facts)])
    made = [provenance.splits(facts), provenance.libraries(facts), provenance.runs(facts)]
    yield Section("made", "How it was made", tables=made)


def _by_stock(
    facts: MonthFacts, draw: Callable[[MonthFacts, str], Picture | None]
) -> list[Picture]:
    return _there(*(draw(facts, symbol) for symbol in facts.symbols))


def _there(*pictures: Picture | None) -> list[Picture]:
    return [one for one in pictures if one is not None]


def _holds_anything(section: Section) -> bool:
    return bool(section.large or section.small or any(table.groups for table in section.tables))
