"""What to do about a month's failures and regressions: ranked, as commands ready to copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import CONFIRMATION, family_of, on_request, refined_name
from retrain_assets.training.ladder import POLICY, RungResult, next_rung, stopped
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets.training.policy import TrainingPlan

if TYPE_CHECKING:
    from retrain_assets.evaluation.regression import StockFacts

WORSE = "worse"
SUSPECT = "suspect"
LONGER_HOLDOUT = 28
"""Sessions over which a suspect is looked at again: the guide's "use longer holdout"."""
LONGER_FORECASTS = 4
"""Forecasts that it holds at least, however long one is."""
_RANKS = ("failed", "missing", "stale", WORSE, SUSPECT, "nothing")


@dataclass(frozen=True)
class _Remedy:
    """One thing to do. options: of the command, after the month. run_config: of Dagster."""

    why: str
    symbol: str
    family: str | None
    reason: str
    action: str = "none"
    options: str = ""
    run_config: dict[str, Any] | None = None
    rung: str | None = None

    def command(self, month: str, symbols: Sequence[str]) -> str | None:
        if self.action == "none":
            return None
        return f"retrain {self.action} --stocks {' '.join(symbols)} --month {month}{self.options}"

    def to_json(self, month: str) -> dict[str, Any]:
        return {
            "symbol": self.symbol,
            "family": self.family,
            "action": self.action,
            "command": self.command(month, [self.symbol]),
            "run_config": self.run_config,
            "rung": self.rung,
            "reason": self.reason,
        }


def remedies(
    month: str, stocks: Sequence[StockFacts], regressions: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Recommendations in the order of their urgency, and their commands gathered over stocks.

    regressions: rows of the analysis, the gravest first. A recommendation has `symbol`, `family`
    (null = all of them), `action`, `command`, `run_config` (of Dagster, does the same), `rung` and
    `reason`. Actions, by urgency:

    - `run`: for what failed, is missing, or is stale, of the family whose asset it is, or of all;
    - `refine`: for what is worse, and for suspects that err more on a longer holdout as well, with
      the next rung of the ladder;
    - `analyze`: for suspects, with a longer holdout, to see whether they are truly worse;
    - `none`: a statement, where the ladder is over, where a longer holdout shows no more error or
      is not to be had, and where a stock vanished.

    A stock and family gets one of them, the most urgent: what is stale is run before it is judged.
    """
    found: list[_Remedy] = []
    for stock in stocks:
        found += _gone(stock) or _runs(stock)
    known = {stock.symbol: stock for stock in stocks}
    settled = {(remedy.symbol, remedy.family) for remedy in found}
    for row in regressions:
        key = (row["symbol"], row["family"])
        if not settled & {key, (row["symbol"], None)}:
            settled.add(key)
            remedy = _worse if row["status"] == WORSE else _suspect
            found.append(remedy(known[row["symbol"]], row))
    found.sort(key=lambda remedy: _RANKS.index(remedy.why))
    return [remedy.to_json(month) for remedy in found], _commands(month, found)


def _commands(month: str, found: Sequence[_Remedy]) -> list[str]:
    """One command for all stocks that need the same."""
    together: dict[tuple[str, str], list[_Remedy]] = {}
    for remedy in found:
        together.setdefault((remedy.action, remedy.options), []).append(remedy)
    commands = [
        group[0].command(month, list(dict.fromkeys(remedy.symbol for remedy in group)))
        for group in together.values()
    ]
    return [command for command in commands if command is not None]


def _gone(stock: StockFacts) -> list[_Remedy]:
    return [_Remedy("nothing", stock.symbol, None, stock.vanished)] if stock.vanished else []


def _runs(stock: StockFacts) -> list[_Remedy]:
    """What to run again, one a family; one for all if an asset is that of no family."""
    told = [
        *(("failed", a, "failed: mend what its error says") for a in sorted(stock.failures)),
        *(("missing", a, "is missing") for a in stock.missing),
        *(("stale", a, f"is stale: {why}") for a, why in sorted(stock.stale.items())),
    ]
    whose: dict[str | None, list[tuple[str, str]]] = {}
    for why, asset, text in told:
        if not on_request(asset):
            whose.setdefault(family_of(asset), []).append((why, f"{asset} {text}"))
    if None in whose:
        whose = {None: [entry for entries in whose.values() for entry in entries]}
    return [
        _Remedy(
            why=min((why for why, _ in entries), key=_RANKS.index),
            symbol=stock.symbol,
            family=name,
            reason="; ".join(text for _, text in entries),
            action="run",
            options="" if name is None else f" --model-type {name}",
            run_config={},
        )
        for name, entries in whose.items()
    ]


def _worse(stock: StockFacts, row: Mapping[str, Any]) -> _Remedy:
    """The next rung, or the statement that the ladder is over."""
    name = str(row["family"])
    errs = f"errs {_more(row)} than {row['against']}{_confirmed(row)}"
    rung, over = None, None
    try:
        if (adapter := stock.adapters.get(name)) is not None:
            plan = TrainingPlan.from_json(adapter["plan"])
            # Without a ladder only names matter, and there is none yet.
            done = stock.rungs.get(name) or [RungResult(POLICY, None)]
            rung, over = next_rung(plan, done), stopped(plan, done)
    except BadInput as error:
        errs = f"{errs}; {error}"
    if over is not None:
        return _Remedy("nothing", stock.symbol, name, f"{errs}, and the ladder is over: {over}")
    return _Remedy(
        WORSE,
        stock.symbol,
        name,
        errs if rung is None else f"{errs}; next rung {rung.name}: {rung.reason}",
        action="refine",
        options=f" --model-type {name}",
        run_config={"ops": {refined_name(name): {"config": {"rungs": 1}}}},
        rung=None if rung is None else rung.name,
    )


def _suspect(stock: StockFacts, row: Mapping[str, Any]) -> _Remedy:
    """A longer holdout; if it was looked at already, what it showed.

    The test is part of it, and there the candidate errs more: what it shows is still no proof.
    """
    errs = f"errs {_more(row)} than {row['against']}, on the test as well, which may be chance"
    days, forecasts = _longer(stock)
    looked = row["confirmation"]
    if looked is not None and looked["holdout_days"] >= days:
        if (looked["change_pct"] or 0.0) > 100 * NEGLIGIBLE:
            return _worse(stock, row)
        errs = f"{errs}{_confirmed(row)}"
        return _Remedy("nothing", stock.symbol, row["family"], errs)
    if forecasts is not None and forecasts <= row["test_mae_pct"]["origins"]:
        errs = f"{errs}; the test segment allows no longer holdout: see what next month says"
        return _Remedy("nothing", stock.symbol, row["family"], errs)
    return _Remedy(
        SUSPECT,
        stock.symbol,
        row["family"],
        errs,
        action="analyze",
        options=f" --holdout-days {days}",
        run_config={"ops": {CONFIRMATION: {"config": {"holdout_days": days}}}},
    )


def _longer(stock: StockFacts) -> tuple[int, int | None]:
    """Sessions of a longer holdout, and how many forecasts they hold if that is known."""
    if stock.comparison is None:
        return LONGER_HOLDOUT, None
    own = int(stock.comparison["holdout_days"])
    free = int(stock.comparison["plan_horizon"]) + own  # the test: no choice was made there
    days = min(max(LONGER_HOLDOUT, LONGER_FORECASTS * own), free)
    return days, days // own


def _confirmed(row: Mapping[str, Any]) -> str:
    """What a longer holdout showed, to go on a sentence with."""
    looked = row["confirmation"]
    if looked is None or looked["change_pct"] is None:
        return ""
    return f"; over {looked['holdout_days']} sessions {looked['change_pct']:+.1f} %"


def _more(row: Mapping[str, Any]) -> str:
    share = row["regression_relative_pct"]
    return f"{row['regression_pct']:.2f} points more" if share is None else f"{share:.1f} % more"
