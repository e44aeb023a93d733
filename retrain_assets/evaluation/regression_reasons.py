"""What may have made a candidate worse, as far as the stored facts can tell.

None of it is proven to be the cause: these are the places to look first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrain_assets.evaluation.pairings import INCUMBENT, ZERO_SHOT
from retrain_assets.evaluation.pooling import relative_losses
from retrain_assets.evaluation.search_results import words
from retrain_assets.training.losses import NEGLIGIBLE
from retrain_assets.training.splits import MAX_SELECTION_ORIGINS

if TYPE_CHECKING:
    from retrain_assets.evaluation.regression import StockFacts

REGIME_RATIO = 1.5
"""Volatility beyond this many times the month before's, or below its inverse, is another regime."""
EARLY_EPOCH = 1
"""A best epoch up to this one means that training brought next to nothing."""


def reasons(stock: StockFacts, family: str, rivals: Sequence[str]) -> list[str]:
    """What may explain that a family's candidate errs more than a rival, one sentence each.

    rivals: the one and those that err alike, of `incumbent`, `last_month` and `zero_shot`. What
    changed since the month before explains nothing against this month's own base.
    """
    changed = [_fewer_bars(stock), _other_regime(stock), _other_base(stock, family, rivals[0])]
    told = [
        *([] if ZERO_SHOT in rivals else changed),
        _odd_bars(stock),
        _early(stock, family),
        _adapter_worse(stock, family, rivals),
        _few_origins(stock),
        _idle_settings(stock, family),
    ]
    return [reason for reason in told if reason is not None]


def _fewer_bars(stock: StockFacts) -> str | None:
    now, before = ((r or {}).get("bars") for r in (stock.comparison, stock.earlier))
    if now is None or before is None or now >= before:
        return None
    return f"fewer bars than last month: {now}, then {before}"


def _other_regime(stock: StockFacts) -> str | None:
    now, before = stock.volatility_pct, stock.earlier_volatility_pct
    if not now or not before or 1 / REGIME_RATIO <= now / before <= REGIME_RATIO:
        return None
    return f"another volatility: {now:.2f} % a day, {before:.2f} % last month"


def _other_base(stock: StockFacts, family: str, against: str) -> str | None:
    now, then = _version(stock, family), _rival(stock, family, against)
    if not now or not then or now["fingerprint"] == then["fingerprint"]:
        return None
    told = [f"{v['base'] or v['family']} ({v['fingerprint'][:8] or 'none'})" for v in (now, then)]
    return f"another base: {told[0]}, then {told[1]}"


def _odd_bars(stock: StockFacts) -> str | None:
    return f"odd bars: {'; '.join(stock.odd_bars)}" if stock.odd_bars else None


def _early(stock: StockFacts, family: str) -> str | None:
    """A refined candidate has an adapter of its own, so the version's comes first."""
    record = _version(stock, family).get("adapter") or stock.adapters.get(family)
    if record is None or record["metrics"]["best_epoch"] > EARLY_EPOCH:
        return None
    epochs = record["metrics"]["epochs"]
    if record["metrics"]["best_epoch"] == 0:
        return f"training brought nothing: none of {epochs} epochs lowered the validation loss"
    return f"training was at its best after the first of {epochs} epochs"


def _adapter_worse(stock: StockFacts, family: str, rivals: Sequence[str]) -> str | None:
    name, means = _candidate(stock, family).get("name"), _means(stock)
    adapter, base = f"{family}.adapter", f"{family}.zero_shot"
    if not {adapter, base} <= set(means):
        return None
    if name == adapter and ZERO_SHOT in rivals:
        return None  # that is what is to be explained
    if not means[base] or means[adapter] <= means[base] * (1 + NEGLIGIBLE):
        return None
    more = 100 * (means[adapter] / means[base] - 1)
    return f"the adapter errs {more:.1f} % more than its base with the same settings"


def _few_origins(stock: StockFacts) -> str | None:
    count, usual = len(_selection(stock).get("cutoff", [])), MAX_SELECTION_ORIGINS
    if not 0 < count < usual:
        return None
    return f"only {count} selection origins instead of {usual}: the history is short"


def _idle_settings(stock: StockFacts, family: str) -> str | None:
    """Chosen settings that err no less than the published ones, with the same adapter."""
    chosen, adapter, means = f"{family}.chosen", f"{family}.adapter", _means(stock)
    if _candidate(stock, family).get("name") != chosen or not {chosen, adapter} <= set(means):
        return None
    published = (stock.comparison or {}).get(ZERO_SHOT, {}).get(family, {}).get("settings", {})
    settings = _version(stock, family)["settings"]
    other = {n: v for n, v in settings.items() if n not in published or published[n] != v}
    if not other or means[chosen] < means[adapter] * (1 - NEGLIGIBLE):
        return None
    return f"other settings than the published ones, without gain: {words(other)}"


def _candidate(stock: StockFacts, family: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (stock.comparison or {}).get("candidates", {}).get(family, {})
    return found


def _version(stock: StockFacts, family: str) -> Mapping[str, Any]:
    """This month's candidate as JSON, empty if it is not known."""
    decided = (stock.champion or {}).get("families", {}).get(family, {})
    return _candidate(stock, family).get("version") or decided.get("candidate") or {}


def _rival(stock: StockFacts, family: str, against: str) -> Mapping[str, Any]:
    if against == INCUMBENT:
        decided = (stock.champion or {}).get("families", {}).get(family, {})
        return decided.get("incumbent") or {}
    return (stock.comparison or {}).get(against, {}).get(family) or {}


def _selection(stock: StockFacts) -> Mapping[str, Any]:
    """The table of selection losses, of whichever record has one."""
    for record in (stock.comparison, stock.champion):
        if found := ((record or {}).get("losses") or {}).get("selection"):
            return found  # type: ignore[no-any-return]  # JSON
    return {}


def _means(stock: StockFacts) -> dict[str, float]:
    """Mean relative selection loss of each column."""
    table = ((stock.comparison or {}).get("losses") or {}).get("selection")
    if table is None:
        return {}
    return {str(name): float(mean) for name, mean in relative_losses(table).mean().items()}
