"""Which stocks got worse this month, against whom, by how much, and what to do about it.

The analysis behind the guide compared the error of one step with that of 64, on other days, and
could never find anything. Here this month's candidate of a family is compared with what it would
replace, with last month's candidate and with its own base, each on the same origins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.pairings import Pairing, errs_more, holm, pairings, read_losses
from retrain_assets.evaluation.regression_reasons import reasons
from retrain_assets.evaluation.remedies import SUSPECT, WORSE, remedies
from retrain_assets.evaluation.significance import ALPHA
from retrain_assets.files import checked_symbol
from retrain_assets.training.ladder import RungResult

_RECORDS = ("comparison", "champion")


@dataclass(frozen=True)
class StockFacts:
    """What is known of one stock and month; whatever is not known is left out.

    comparison, earlier: `StockRecord` of this month and of the month before, as JSON.
    champion: the month's champion record as JSON.
    confirmation: what a longer holdout showed of this very candidate, as JSON with `holdout_days`
    (sessions) and `tests` (of `confirmation.against`).
    adapters: by family `AdapterRecord` as JSON, of the month's own plan.
    rungs: by family the results of its ladder, `policy` first.
    failures: asset -> error in full. missing: assets. stale: asset -> why.
    volatility_pct, earlier_volatility_pct: sd of daily log returns in %, this month and the month
    before. odd_bars: what is odd about the bars, in words.
    vanished: why the stock takes part no longer, such as no bars of this month.

    Raises BadInput for a symbol that cannot stand in a command.
    """

    symbol: str
    comparison: Mapping[str, Any] | None = None
    earlier: Mapping[str, Any] | None = None
    champion: Mapping[str, Any] | None = None
    confirmation: Mapping[str, Any] | None = None
    adapters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rungs: Mapping[str, Sequence[RungResult]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    stale: Mapping[str, str] = field(default_factory=dict)
    volatility_pct: float | None = None
    earlier_volatility_pct: float | None = None
    odd_bars: Sequence[str] = ()
    vanished: str | None = None

    def __post_init__(self) -> None:
        checked_symbol(self.symbol)


def regression_analysis(
    month: str, facts: Sequence[StockFacts], *, level: float = ALPHA
) -> dict[str, Any]:
    """Content of `regression_analysis.json` of one month.

    facts: one a stock, in any order. level: of the tests. The guide's fields are `regressions`
    (`symbol`, `baseline_mae_pct`, `optimized_mae_pct`, `regression_pct` in points, `best_model`),
    `failures` (`symbol`, `error`) and `summary` (`total_regressions`, `total_failures`,
    `avg_regression_pct`). They depart from the guide's in this:

    - `optimized` is the candidate of this month and family, `baseline` its rival, `against` says
      which: `incumbent` (what the month's decision was about), `last_month`, or `zero_shot`.
      Rivals that err alike at every origin are one, the others are in `same_as`;
    - both are errors of H-session forecasts from the same selection origins, each in % of the close
      at its origin. `regression_relative_pct` is the difference in % of the rival's error;
    - `p_value` is one-sided (Diebold-Mariano, see `pooling.loss_p_value`), `p_holm` the same
      adjusted by Holm over the stocks that have this family and rival;
    - `status` is `worse` where p_holm is below the level, `suspect` where the candidate errs more
      on selection and test without that being significant, as a candidate that is just as good
      does in a quarter of all cases. Less than `losses.NEGLIGIBLE` more is neither;
    - `test_mae_pct` holds both errors on this month's test origins, for which no p-value exists;
      `confirmation` what a longer holdout showed, null before one was looked at; `promoted`
      whether the candidate replaced the incumbent all the same; `reasons` what may have caused it,
      see `regression_reasons`;
    - `total_regressions` and `avg_regression_pct` are of the rows that are `worse`, suspects are
      counted apart; a stock may have several rows. `note` says so when nothing was compared.

    Failures name the `asset`, and are of every kind. Added are `missing`, `stale`, `vanished`,
    and `recommendations` and `commands` (see `remedies.remedies`).

    The p-values favour the candidate: its settings were chosen on these selection origins, and so
    was its rung. Last month's were chosen on origins that overlap most of them. So a candidate
    that is worse for certain is so in spite of that, and one that is not may still be. Months
    share most selection origins: a stock that is worse two months running is hardly confirmed.

    Raises BadInput for a stock given twice or a level outside 0 to 1. A record that cannot be read
    is a failure of its stock.
    """
    symbols = [stock.symbol for stock in facts]
    if len(set(symbols)) != len(symbols):
        raise BadInput(f"stocks are given twice among {', '.join(sorted(symbols))}: give each once")
    if not 0 < level < 1:
        raise BadInput(f"the level is {level}: give a number between 0 and 1, such as {ALPHA}")
    stocks = [_readable(stock) for stock in sorted(facts, key=lambda stock: stock.symbol)]
    pairs = [pair for stock in stocks for pair in pairings(stock)]
    regressions = _regressions({stock.symbol: stock for stock in stocks}, pairs, level)
    recommendations, commands = remedies(month, stocks, regressions)
    unjudged = _unjudged(stocks)
    return {
        "month": month,
        "level": level,
        "regressions": regressions,
        **unjudged,
        "recommendations": recommendations,
        "commands": commands,
        "summary": _summary(stocks, pairs, regressions, len(unjudged["failures"])),
    }


def _unjudged(stocks: Sequence[StockFacts]) -> dict[str, list[dict[str, Any]]]:
    """What could not be judged, or only on old results."""
    failures, stale = (
        [
            {"symbol": stock.symbol, "asset": asset, text: told}
            for stock in stocks
            for asset, told in sorted(getattr(stock, kind).items())
        ]
        for kind, text in (("failures", "error"), ("stale", "why"))
    )
    return {
        "failures": failures,
        "missing": [{"symbol": s.symbol, "assets": list(s.missing)} for s in stocks if s.missing],
        "stale": stale,
        "vanished": [{"symbol": s.symbol, "why": s.vanished} for s in stocks if s.vanished],
    }


def _readable(stock: StockFacts) -> StockFacts:
    """The stock without records whose losses cannot be read; those are failures then."""
    for name in _RECORDS:
        try:
            read_losses(getattr(stock, name))
        except BadInput as error:
            unread: dict[str, Any] = {name: None}
            stock = replace(stock, **unread, failures={name: str(error), **stock.failures})
    return stock


def _regressions(
    stocks: Mapping[str, StockFacts], pairs: Sequence[Pairing], level: float
) -> list[dict[str, Any]]:
    """Rows of those that are worse or suspect: the worse first, the largest first."""
    raw = [pair.p_value for pair in pairs]
    rows = []
    for pair, p_value, p_holm in zip(pairs, raw, holm(pairs, raw), strict=True):
        if (status := _status(pair, p_holm, level)) is not None:
            p_values = {"p_value": p_value, "p_holm": p_holm}
            rows.append(_row(stocks[pair.symbol], pair, status) | p_values)

    def gravity(row: Mapping[str, Any]) -> tuple[bool, float]:
        share = row["regression_relative_pct"]
        return row["status"] != WORSE, -np.inf if share is None else -share

    return sorted(rows, key=gravity)


def _status(pair: Pairing, p_holm: float | None, level: float) -> str | None:
    if not errs_more(pair.selection):
        return None
    if p_holm is not None and p_holm < level:
        return WORSE
    return SUSPECT if errs_more(pair.test) else None


def _row(stock: StockFacts, pair: Pairing, status: str) -> dict[str, Any]:
    """One regression but its p-values; see `regression_analysis`."""
    rival, own = _mae_pct(pair.selection)
    test_rival, test_own = _mae_pct(pair.test) if len(pair.test) else (None, None)
    decided = (stock.champion or {}).get("families", {}).get(pair.family)
    return {
        "symbol": stock.symbol,
        "baseline_mae_pct": rival,
        "optimized_mae_pct": own,
        "regression_pct": own - rival,
        "regression_relative_pct": 100 * (own / rival - 1) if rival else None,
        "best_model": pair.model,
        "family": pair.family,
        "against": pair.rivals[0],
        "same_as": list(pair.rivals[1:]),
        "status": status,
        "horizon": (stock.comparison or {}).get("holdout_days"),
        "origins": len(pair.selection),
        "test_mae_pct": {
            "baseline": test_rival,
            "optimized": test_own,
            "origins": len(pair.test),
        },
        "confirmation": _confirmation(stock, pair),
        "promoted": decided["decision"]["promote"] if decided else None,
        "reasons": reasons(stock, pair.family, pair.rivals),
    }


def _confirmation(stock: StockFacts, pair: Pairing) -> dict[str, Any] | None:
    """The row of a longer holdout about this family and rival, with its sessions."""
    found = stock.confirmation or {"tests": []}
    for test in found["tests"]:
        if (test["family"], test["against"]) == (pair.family, pair.rivals[0]):
            shown = {name: test[name] for name in ("origins", "change_pct", "p_value")}
            return {"holdout_days": found["holdout_days"], **shown}
    return None


def _mae_pct(losses: pd.DataFrame) -> tuple[float, float]:
    """Error of the rival and of the candidate in % of the close at the origins."""
    return float(100 * losses["rival"].mean()), float(100 * losses["own"].mean())


def _summary(
    stocks: Sequence[StockFacts],
    pairs: Sequence[Pairing],
    regressions: Sequence[Mapping[str, Any]],
    failures: int,
) -> dict[str, Any]:
    points = [row["regression_pct"] for row in regressions if row["status"] == WORSE]
    compared = {pair.symbol for pair in pairs}
    return {
        "total_regressions": len(points),
        "total_suspects": len(regressions) - len(points),
        "total_failures": failures,
        "avg_regression_pct": float(np.mean(points)) if points else None,
        "stocks": len(stocks),
        "stocks_compared": len(compared),
        "comparisons": len(pairs),
        "not_compared": [stock.symbol for stock in stocks if stock.symbol not in compared],
        "note": None if pairs else "nothing was compared: no stock has a candidate and a rival",
    }
