"""A month in three sentences, written from its numbers: forecasts, production, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retrain_assets.evaluation.monthly.facts import (
    MonthFacts,
    Record,
    candidate_score,
    pointed,
    winning_model,
)
from retrain_assets.evaluation.monthly.table import percent
from retrain_assets.evaluation.remedies import SUSPECT, WORSE
from retrain_assets.evaluation.significance import MIN_MONTHS
from retrain_assets.evaluation.versions import Version

NAMED = 4
"""Symbols that a sentence names; of more than these the rest are counted."""

_INCOMPLETE = ("is incomplete", "are incomplete")

Verdict = Literal["promoted", "same", "few", "no lead", "small", "luck", "test", "other"]


@dataclass(frozen=True)
class Sentence:
    """topic: what it is about. figure, of: its one number, and what that counts.

    text: the sentence itself; commands in it stand between backticks.
    """

    topic: str
    figure: str
    of: str
    text: str


def sentences(facts: MonthFacts) -> tuple[Sentence, Sentence, Sentence]:
    """How good the forecasts are, what went into production and why, and what to do now."""
    return _forecasts(facts), _production(facts), _to_do(facts)


def verdict(decision: Record) -> Verdict:
    """What kind of reason a decision has, from its numbers."""
    numbers, rules = decision["numbers"], decision["rules"]
    if decision["promote"]:
        return "promoted"
    if decision["candidate"] == decision["incumbent"]:
        return "same"
    if not numbers:
        return "other"
    if numbers["origins"] < rules["min_origins"]:
        return "few"
    if (numbers["selection_gain_pct"] or 0) <= 0:
        return "no lead"
    if numbers["selection_gain_pct"] < 100 * rules["smallest_gain"]:
        return "small"
    if max(numbers["sign_p"] or 0, numbers["spa_p"] or 0) > numbers["level"]:
        return "luck"
    return "test"


def _forecasts(facts: MonthFacts) -> Sentence:
    """How many stocks, how many err less than naive, and the pooled skill with its interval."""
    count, known = len(facts.records), len(facts.symbols)
    if not count:
        none = "No stock has any record of this month" if not known else _none_compared(known)
        text = f"{none}, so nothing is known of its errors."
        return Sentence("Forecasts", f"0 of {known}", "compared", text)
    one = count == 1
    who = _counted(count, "stock") if count == known else f"{count} of {known} stocks"
    so_far = " so far, for the month is not over" if facts.provisional else ""
    text = f"{who} {'was' if one else 'were'} compared{so_far}: {_beaten(facts)}; {_pooled(facts)}."
    figure = f"{len(facts.sure)} of {count}"
    return Sentence("Forecasts", figure, "surely better than naive", text)


def _none_compared(known: int) -> str:
    alone = "The one stock was not compared"
    return alone if known == 1 else f"None of {known} stocks was compared"


def _beaten(facts: MonthFacts) -> str:
    """Of each family on how many stocks it erred less than naive, and whether that is chance."""
    counts: dict[str, tuple[int, int]] = {}
    for family in facts.usual:
        scores = [candidate_score(record, family) for record in facts.records]
        skills = [score["skill"] or 0.0 for score in scores if score]
        counts[family] = sum(skill > 0 for skill in skills), len(skills)
    if not counts:
        return "no model took part"
    if len(facts.records) == 1:
        told = [
            f"{f} erred {'less' if n else 'no less'} than naive" for f, (n, _) in counts.items()
        ]
    else:
        first, *rest = (f"on {better} of {total}" for better, total in counts.values())
        names = list(counts)
        told = [f"{names[0]} erred less than naive {first}"]
        told += [f"{name} {on}" for name, on in zip(names[1:], rest, strict=True)]
    better = any(n for n, _ in counts.values())
    return f"on the month's test {joined(told)}{_chance(facts) if better else ''}"


def _chance(facts: MonthFacts) -> str:
    if facts.sure:
        return f", beyond chance for {some(facts.sure)}"
    if any(map(winning_model, facts.records)):
        return ", none of it beyond chance once all stocks are counted"
    return ", none of it beyond chance"


def _pooled(facts: MonthFacts) -> str:
    """The skill of each family's usual candidate over naive, of all months so far."""
    to_date, now = facts.statistics["pooled_to_date"], facts.statistics["pooled"]
    found = {f: to_date.get(name) or now.get(name) for f, name in facts.usual.items()}
    pooled = {family: one for family, one in found.items() if one and one["skill"] is not None}
    if not pooled:
        return "no skill over naive can be told"
    months = max(one["months"] for one in pooled.values())
    told = joined([f"{family} {_skill(one)}" for family, one in pooled.items()])
    over = "this month alone" if months == 1 else f"{months} months"
    few = f", too few months for an interval ({MIN_MONTHS} are needed)"
    return f"pooled over {over}, skill over naive is {told}{few if months < MIN_MONTHS else ''}"


def _skill(one: Mapping[str, Any]) -> str:
    text = f"{percent(one['skill'])} %"
    if one["skill_low"] is None:
        return text
    return f"{text} (95 % interval {percent(one['skill_low'])} to {percent(one['skill_high'])})"


def _production(facts: MonthFacts) -> Sentence:
    """What went into production, and why so little or so much."""
    records = [facts.champions[symbol] for symbol in sorted(facts.champions)]
    if not records:
        text = "Nothing was decided in this month, so production is what it was before."
        return Sentence("Production", "0", "changes", text)
    final = [record for record in records if record["final"]]
    if not final:
        stands = _stands(records)
        text = f"The month is not over, so nothing was decided and production stays: {stands}."
        return Sentence("Production", "0", "changes", text)
    live = [record for record in final if record["live"]]
    counted = live or final
    changed = [record for record in counted if changed_production(record)]
    went = "went" if live else "would have gone"
    parts, why = list(_changed(changed, went)), _why_not(counted)
    if why:
        nothing = "elsewhere nothing changed" if changed else f"nothing new {went} into production"
        parts.append(f"{nothing}, because {joined(why)}")
    now = "now in production" if live else "in production would be"
    parts += [*_replaced(counted), f"{now}: {_stands(counted)}", *_aside(final, live)]
    text = "; ".join(parts)
    count = len(changed) if live else 0
    what = "change" if count == 1 else "changes"
    return Sentence("Production", str(count), what, f"{text[0].upper()}{text[1:]}.")


def changed_production(record: Record) -> bool:
    """Whether a month's decisions put another version into production, by evidence or by hand.

    Where production points to a family whose champion is replaced, it follows.
    """
    pointer = record["pointer"]
    ids = [Version.from_json(pointer[which]).id for which in ("version", "incumbent")]
    return ids[0] != ids[1]


def _changed(records: Sequence[Record], went: str) -> Iterator[str]:
    """What was put into production in place of what, stocks of the same change together."""
    ways: dict[str, list[str]] = {}
    for record in records:
        to, before = pointed(record), record["pointer"]["incumbent"]["family"]
        if month := record.get("rolled_back_to"):
            way = f"what {month} decided was put back by hand for"
        elif to == before:
            way = f"a newer {to} {went} into production on evidence beyond luck for"
        else:
            way = f"{to} in place of {before} {went} into production on evidence beyond luck for"
        ways.setdefault(way, []).append(record["symbol"])
    for way, symbols in ways.items():
        yield f"{way} {some(symbols)}"


def _why_not(records: Sequence[Record]) -> list[str]:
    """Why the others stay as they are, most frequent reason first."""
    says = {
        "same": "what leads is there already",
        "few": "there are too few forecasts to decide on",
        "no lead": "nothing errs less than what is there",
        "small": "the lead is too small to count",
        "luck": "the lead may be luck",
        "test": "the test spoke against the lead",
        "other": "nothing could be judged",
    }
    same = [r for r in records if not changed_production(r) and not r.get("rolled_back_to")]
    kinds = Counter(verdict(record["pointer"]["decision"]) for record in same)
    if len(kinds) == 1:
        return [says[kind] for kind in kinds]
    return [f"for {_counted(n, 'stock')} {says[kind]}" for kind, n in kinds.most_common()]


def _replaced(records: Sequence[Record]) -> list[str]:
    """Champions of families that were replaced, whether production points to them or not."""
    names = [
        f"{record['symbol']} {name}"
        for record in records
        for name, state in record["families"].items()
        if state["decision"]["promote"]
    ]
    if not names:
        return []
    what = "family's champion was" if len(names) == 1 else "champions of families were"
    return [f"{len(names)} {what} replaced ({some(names)})"]


def _stands(records: Sequence[Record]) -> str:
    counts = Counter(pointed(record) for record in records)
    if len(counts) == 1 and len(records) > 1:
        whom = "both stocks" if len(records) == 2 else f"all {len(records)} stocks"
        return f"{next(iter(counts))} for {whom}"
    return joined([f"{name} for {_counted(n, 'stock')}" for name, n in counts.most_common()])


def _aside(final: Sequence[Record], live: Sequence[Record]) -> list[str]:
    """Whose decisions moved nothing, because they were not to, or a later month is live."""
    aside = [record["symbol"] for record in final if not record["live"]]
    if not aside:
        return []
    whom = f" of {some(aside)}" if live else ""
    return [f"the decisions{whom} were for the record alone"]


def _to_do(facts: MonthFacts) -> Sentence:
    """What got worse, failed or is stale, and what to do about it."""
    if facts.analysis is None:
        command = f"retrain analyze --month {facts.month}"
        text = f"Whether anything got worse was not looked at: begin with `{command}`."
        return Sentence("To do", "?", "not looked at", text)
    troubles = list(_troubles(facts))
    commands = facts.analysis["commands"]
    found = joined(troubles) if troubles else "nothing got worse, failed or is stale"
    text = f"{found[0].upper()}{found[1:]}"
    if commands:
        what = "command to run" if len(commands) == 1 else "commands to run"
        return Sentence("To do", str(len(commands)), what, _begin(commands, text))
    end = "no command would help" if troubles else "there is nothing to do"
    return Sentence("To do", "0", "commands to run", f"{text}; {end}.")


def _begin(commands: Sequence[str], found: str) -> str:
    rest = len(commands) - 1
    more = f", then {_counted(rest, 'more command')} below" if rest else ""
    return f"{found}; begin with `{commands[0]}`{more}."


def _troubles(facts: MonthFacts) -> Iterator[str]:
    kinds = {
        status: _symbols(row for row in facts.found("regressions") if row["status"] == status)
        for status in (WORSE, SUSPECT)
    }
    drifted = sorted(s for s, record in facts.live.items() if record["drift"]["drifted"])
    failed = _symbols(facts.found("failures"))
    suspects = [symbol for symbol in kinds[SUSPECT] if symbol not in kinds[WORSE]]
    told = (
        (failed, "failed", "failed"),
        (kinds[WORSE], "got worse", "got worse"),
        (suspects, "looks worse (maybe by chance)", "look worse (maybe by chance)"),
        (drifted, "has drifted in production", "have drifted in production"),
        ([s for s in _symbols(facts.found("missing")) if s not in failed], *_INCOMPLETE),
        (_symbols(facts.found("stale")), "is stale", "are stale"),
        (_symbols(facts.found("vanished")), "is gone", "are gone"),
    )
    for symbols, of_one, of_many in told:
        if symbols:
            yield f"{some(symbols)} {of_one if len(symbols) == 1 else of_many}"


def _symbols(rows: Iterable[Record]) -> list[str]:
    return sorted({row["symbol"] for row in rows})


def some(names: Sequence[str]) -> str:
    """A list in words; of a long one the first few, and how many more there are."""
    if len(names) <= NAMED:
        return joined(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def joined(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
