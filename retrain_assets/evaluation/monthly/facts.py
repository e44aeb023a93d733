"""What is known of a month: the records of all its stocks, as they were stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooled_skill import month_statistics, skill_over_months
from retrain_assets.evaluation.significance import ALPHA
from retrain_assets.evaluation.stock_record import StockRecord, scored

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]
BySymbol = Mapping[str, Record]


@dataclass(frozen=True)
class SeenBars:
    """What the month saw of a stock's history.

    bars: how many, from the session `first` to `last` (dates). provisional: the month's last
    session is not among them. source: where the stored bars came from. odd: what a person should
    look at, in words (`market.schema.warnings`).
    """

    bars: int
    first: str
    last: str
    provisional: bool
    source: str = ""
    odd: Sequence[str] = ()


@dataclass(frozen=True)
class MonthFacts:
    """All records of a month, by symbol; what was not made is left out.

    comparisons: `StockRecord`; earlier: those of the months before, of all stocks. champions: the
    decisions. analysis: of `regression.regression_analysis`, None before the first one.
    adapters, searches: by family, then by symbol `AdapterRecord` and `ParamsRecord` as JSON.
    live, live_before: live records of the month, and of the months before by symbol, ascending.
    bars: what was seen. forecasts: by symbol the table of `Comparison.forecasts`. pages: by symbol
    where its runs can be looked at, addresses by name.
    """

    month: str
    comparisons: Mapping[str, StockRecord] = field(default_factory=dict)
    earlier: Sequence[StockRecord] = ()
    champions: BySymbol = field(default_factory=dict)
    analysis: Record | None = None
    adapters: Mapping[str, BySymbol] = field(default_factory=dict)
    searches: Mapping[str, BySymbol] = field(default_factory=dict)
    live: BySymbol = field(default_factory=dict)
    live_before: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    bars: Mapping[str, SeenBars] = field(default_factory=dict)
    forecasts: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    pages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def records(self) -> list[StockRecord]:
        """The comparisons in the order of their symbols."""
        return [self.comparisons[symbol] for symbol in sorted(self.comparisons)]

    @cached_property
    def symbols(self) -> list[str]:
        """Every stock that anything is known of, sorted."""
        told = [self.comparisons, self.champions, self.live, self.bars]
        told += [*self.adapters.values(), *self.searches.values()]
        named = {row["symbol"] for kind in ("failures", "missing") for row in self.found(kind)}
        return sorted(named.union(*told))

    @cached_property
    def families(self) -> list[str]:
        """Model families that take part, in the order in which the records have them."""
        compared = [name for record in self.records for name in record["candidates"]]
        decided = [name for record in self.champions.values() for name in record["families"]]
        return list(dict.fromkeys([*compared, *decided, *self.adapters, *self.searches]))

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """`pooled_report.month_statistics` of the month, empty where nothing was compared."""
        return month_statistics(self.records, self.earlier) if self.records else {}

    @cached_property
    def usual(self) -> dict[str, str]:
        """By family the candidate that most stocks have: what is pooled for it."""
        found: dict[str, str] = {}
        for family in self.families:
            entries = [record["candidates"].get(family) for record in self.records]
            names = Counter(entry["name"] for entry in entries if entry)
            if names:
                found[family] = names.most_common(1)[0][0]
        return found

    @cached_property
    def sure(self) -> list[str]:
        """Stocks on which a model won, with a p that counts all candidates and all stocks."""
        p_values = self.statistics.get("holm", {})
        won = [(record["symbol"], winning_model(record)) for record in self.records]
        return [symbol for symbol, name in won if name and p_values[name][symbol] < ALPHA]

    @cached_property
    def course(self) -> dict[str, list[dict[str, Any]]]:
        """`pooled_report.skill_over_months` of the usual candidates."""
        if not self.records:
            return {}
        return skill_over_months(self.records, self.earlier, list(self.usual.values()))

    @property
    def provisional(self) -> bool:
        """Whether the month is not over for any of its stocks."""
        seen = [bars.provisional for bars in self.bars.values()]
        return any(seen or [record["provisional"] for record in self.records])

    def found(self, kind: str) -> list[dict[str, Any]]:
        """A list of the analysis: regressions, failures, missing, stale, vanished."""
        return list((self.analysis or {}).get(kind, []))


def candidate_score(record: StockRecord, family: str) -> dict[str, Any] | None:
    """Test scores of a family's candidate on forecasts of H sessions, None if it has none."""
    entry = record["candidates"].get(family)
    return None if entry is None else scored(record, "test", "holdout").get(entry["name"])


def winning_model(record: StockRecord) -> str | None:
    """The candidate that the verdict on a stock names, None where no model won."""
    return record["winner"] if "." in record["winner"] else None


def pointed(record: Record) -> str:
    """What production points to after a month's decisions: a family, or naive."""
    return str(record["pointer"]["to"] or NAIVE)
