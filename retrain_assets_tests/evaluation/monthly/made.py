"""Made months for tests: records as the pipeline stores them, of forecasters that cost nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrain_assets.evaluation.champions import Occasion, decide_month, standing
from retrain_assets.evaluation.live_record import Drift, live_entry
from retrain_assets.evaluation.monthly.facts import MonthFacts, SeenBars
from retrain_assets.evaluation.promotion import Rules
from retrain_assets.evaluation.regression import StockFacts, regression_analysis
from retrain_assets.evaluation.stock_record import StockRecord
from retrain_assets_tests.evaluation.records import TWO, compared_record, loss_record, measured

MONTH = "2023-08"
MONTHS = ("2022-12", "2023-01", "2023-02", "2023-03", "2023-04", "2023-05", "2023-06", "2023-07")
FAMILIES = ("kronos", "toto")


def record_of(symbol: str, **changes: Any) -> StockRecord:
    """A comparison whose candidates differ from their bases, so that there is something to decide.

    changes: of its fields.
    """
    record = copy.deepcopy(compared_record(symbol, TWO))
    for family in FAMILIES:
        record["zero_shot"][family] |= {"adapter": None, "month": ""}
        version = record["candidates"][family]["version"]
        version["adapter"] = {
            "digest": f"{family}-01",
            "metrics": adapter(family, symbol)["metrics"],
        }
    record.update(changes)  # type: ignore[typeddict-item]  # fields of a record
    return record


def decided(record: StockRecord, *, final: bool = True, live: bool = True) -> dict[str, Any]:
    """What a month decides whose bases are the first champions, and naive in production."""
    occasion = Occasion(record["symbol"], MONTH, record["cut"], final, live, "2023-09-01T00:00:00Z")
    return decide_month(
        occasion,
        standing(None, record),
        comparison=record,
        previous=None,
        forecast={},
        tried={},
        rules=Rules(repetitions=499),  # as few as its level allows: they take most of the time
    )


def gaining(record: StockRecord, family: str, share: float = 0.5) -> StockRecord:
    """The record with a candidate that errs so much less than naive wherever it was compared."""
    record = copy.deepcopy(record)
    name = record["candidates"][family]["name"]
    for table in record["losses"].values():
        table[name] = [(1 - share) * loss for loss in table["naive"]]
    naive = {(r["segment"], r["scope"]): r for r in record["scores"] if r["candidate"] == "naive"}
    for row in record["scores"]:
        if row["candidate"] == name:
            level = naive[row["segment"], row["scope"]]
            row |= {"mae_pct": (1 - share) * level["mae_pct"], "skill": share}
    record["winner"], record["p_values"][name] = name, 1e-6
    return record


def earlier(symbols: Sequence[str], months: Sequence[str] = MONTHS) -> list[StockRecord]:
    """Records of months before in which kronos errs a tenth more than naive, toto as much."""
    draw = np.random.default_rng(0)
    found = []
    for month in months:
        for symbol in symbols:
            naive = draw.uniform(1, 3, 3)
            noise = draw.normal(1, 0.02, 3)
            losses = {
                "naive": naive.tolist(),
                "kronos.chosen": (1.1 * naive * noise).tolist(),
                "toto.chosen": (naive * noise).tolist(),
            }
            found.append(loss_record(symbol, month, losses))
    return found


def adapter(family: str, symbol: str) -> dict[str, Any]:
    """What the report reads of an adapter's record."""
    spans = {"train": "01", "validation": "05", "selection": "06", "test": "07"}
    return {
        "symbol": symbol,
        "base": "nano",
        "fingerprint": f"{family:0<64}",
        "seed": 0,
        "plan": {"difficulty": "medium", "context": 256, "horizon": 16},
        "split_dates": {
            name: {"first": f"2023-{number}-01", "last": f"2023-{number}-28", "bars": 20}
            for name, number in spans.items()
        },
        "metrics": {
            "best_epoch": 2,
            "epochs": 3,
            "validation_loss": 0.9,
            "base_validation_loss": 1.0,
            "validations": [{"loss": loss} for loss in (1.0, 0.95, 0.9, 0.92)],
            "step_losses": [{"loss": 1.2 - 0.001 * step} for step in range(150)],
        },
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
    }


def search(gain: float = 4.0) -> dict[str, Any]:
    """What the report reads of the record of a search."""
    scores = {name: {"mae_pct": 3.0} for name in ("chosen", "default", "naive")}
    return {
        "chosen": {"temperature": 0.7, "top_k": None},
        "summary": {
            "selection": scores,
            "test": scores,
            "expected_gain_pct": gain,
            "shrinkage_pct": 1.5,
            "spa_p_value": 0.4,
        },
    }


def live(symbol: str, *, drifted: bool = False) -> dict[str, Any]:
    """A live record: kronos is in production and errs a tenth more than naive."""
    naive = np.array([0.02, 0.03, 0.025])
    losses = {"kronos": 1.1 * naive, "toto": 0.9 * naive, "naive": naive}
    entries = {name: live_entry(losses, name) for name in FAMILIES}
    reason = "against naive -10.0 % on 9 live forecasts, +5.0 % where it was selected, p = 0.01"
    return {
        "symbol": symbol,
        "month": MONTH,
        "in_production": "kronos",
        "entries": entries | {"pointer": entries["kronos"]},
        "drift": Drift(drifted, 0.01, reason).to_json(),
        "reason": "kronos was in production",
    }


def analysed(
    records: Sequence[StockRecord],
    champions: Mapping[str, Any],
    **facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The month's analysis. facts: by symbol further fields of `StockFacts`."""
    stocks = {
        record["symbol"]: StockFacts(
            record["symbol"],
            comparison=record,
            champion=champions.get(record["symbol"]),
            **facts.get(record["symbol"], {}),
        )
        for record in records
    }
    stocks |= {s: StockFacts(s, **more) for s, more in facts.items() if s not in stocks}
    return regression_analysis(MONTH, list(stocks.values()))


def month_of(
    records: Sequence[StockRecord],
    *,
    months: Sequence[str] = (),
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> MonthFacts:
    """A whole month of these comparisons.

    months: before it, see `earlier`. facts: of the analysis. changes: fields of the month.
    """
    symbols = [record["symbol"] for record in records]
    champions = {record["symbol"]: decided(record) for record in records}
    known = {
        "comparisons": {record["symbol"]: record for record in records},
        "earlier": earlier(symbols, months),
        "champions": champions,
        "analysis": analysed(records, champions, **(facts or {})),
        "adapters": {f: {s: adapter(f, s) for s in symbols} for f in FAMILIES},
        "searches": {f: {s: search() for s in symbols} for f in FAMILIES},
        "live": {symbol: live(symbol) for symbol in symbols},
        "bars": {
            symbol: SeenBars(500, "2021-09-01", f"{MONTH}-31", False, "made.csv")
            for symbol in symbols
        },
        "forecasts": {symbol: measured(symbol, TWO)[0] for symbol in symbols},
        "pages": {s: {"comparison": f"http://127.0.0.1:3000/runs/{s}"} for s in symbols},
    }
    return MonthFacts(month=MONTH, **{**known, **changes})
