"""This month's candidates beside what they are measured against, on the same origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation import significance
from retrain_assets.evaluation.pooling import loss_p_value, relative_losses
from retrain_assets.training.losses import NEGLIGIBLE

if TYPE_CHECKING:
    from retrain_assets.evaluation.regression import StockFacts

INCUMBENT, LAST_MONTH, ZERO_SHOT = "incumbent", "last_month", "zero_shot"
"""Rivals of a candidate, as variants are named in the tables of losses."""

Losses = dict[str, pd.DataFrame]
"""Relative losses by segment (selection, test): rows origins, columns names."""

_NO_ORIGINS = pd.DataFrame({"own": [], "rival": []}, dtype=np.float64)


@dataclass(frozen=True)
class Pairing:
    """A candidate and one rival on the same origins.

    model: the candidate's name. rivals: the one, and further ones that err alike at every origin.
    selection, test: relative losses, columns own and rival; test is empty where there is none.
    """

    symbol: str
    family: str
    model: str
    rivals: tuple[str, ...]
    selection: pd.DataFrame
    test: pd.DataFrame

    @property
    def p_value(self) -> float | None:
        """One-sided p of "errs no more than the rival"; None with fewer than two origins."""
        own, rival = self.selection["own"], self.selection["rival"]
        return loss_p_value(own, rival, alternative="greater")


def read_losses(record: Mapping[str, Any] | None) -> Losses:
    """Relative losses of a comparison's or champion's record; empty where it compared nothing.

    Raises BadInput for a table that is incomplete or holds what is no number.
    """
    tables = {} if record is None else record.get("losses") or {}
    found = {segment: relative_losses(table) for segment, table in tables.items()}
    for segment, table in found.items():
        if not np.isfinite(table.to_numpy()).all():
            raise BadInput(f"a loss of the {segment} origins is no number: compare the month again")
    return found


def pairings(stock: StockFacts) -> list[Pairing]:
    """Every candidate of a stock with each of its rivals, rivals that are the same joined."""
    comparison, champion = read_losses(stock.comparison), read_losses(stock.champion)
    candidates = (stock.comparison or {}).get("candidates", {})
    found: list[Pairing] = []
    for family in sorted({*candidates, *(stock.champion or {}).get("families", {})}):
        decided = f"{family}.candidate"
        model = candidates[family]["name"] if family in candidates else decided
        pairs: list[Pairing] = []
        for rival, losses, own in (
            (INCUMBENT, champion, decided),
            (LAST_MONTH, comparison, model),
            (ZERO_SHOT, comparison, model),
        ):
            columns = (own, f"{family}.{rival}")
            selection, test = (_pair(losses, name, columns) for name in ("selection", "test"))
            if not selection.empty:
                _add(pairs, Pairing(stock.symbol, family, model, (rival,), selection, test))
        found += pairs
    return found


def holm(pairs: Sequence[Pairing], raw: Sequence[float | None]) -> list[float | None]:
    """Each p adjusted over the stocks that have the same family and rival."""
    adjusted: list[float | None] = [None] * len(raw)
    groups: dict[tuple[str, str], dict[int, float]] = {}
    for place, (pair, p_value) in enumerate(zip(pairs, raw, strict=True)):
        if p_value is not None:
            groups.setdefault((pair.family, pair.rivals[0]), {})[place] = p_value
    for group in groups.values():
        for place, value in significance.holm(group).items():
            adjusted[place] = value
    return adjusted


def errs_more(losses: pd.DataFrame) -> bool:
    """Whether the candidate's mean loss is above the rival's by more than a trifle.

    losses: columns own and rival. Without origins it is not.
    """
    return bool(losses["own"].mean() > losses["rival"].mean() * (1 + NEGLIGIBLE))


def _pair(losses: Losses, segment: str, columns: tuple[str, str]) -> pd.DataFrame:
    """Two columns of a table as own and rival; empty unless both are there."""
    table = losses.get(segment)
    if table is None or not set(columns) <= set(table.columns):
        return _NO_ORIGINS
    return table[list(columns)].set_axis(["own", "rival"], axis="columns")


def _add(pairs: list[Pairing], new: Pairing) -> None:
    """Append a pairing, or name its rival beside that of an earlier one which errs alike."""
    for place, known in enumerate(pairs):
        if known.selection.index.equals(new.selection.index) and np.allclose(
            known.selection, new.selection, rtol=1e-9, atol=0
        ):
            pairs[place] = replace(known, rivals=(*known.rivals, *new.rivals))
            return
    pairs.append(new)
