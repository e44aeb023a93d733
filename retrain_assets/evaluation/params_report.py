"""Chosen settings for people and scripts: the guide's JSON with honest additions, and a table.

An error called `mae` here is that of the untouched test window. The error a setting was chosen
by is called `selection_mae`: it is the lowest of many, hence too low.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.params import ParamsRecord
from retrain_assets.evaluation.search_results import CHOSEN, DEFAULT
from retrain_assets.models.forecaster import written

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

_COPIED = (
    "expected_gain_pct",
    "selection_gain_pct",
    "shrinkage_pct",
    "expected_gain_over_naive_pct",
    "selection_gain_over_naive_pct",
    "shrinkage_over_naive_pct",
    "spa_p_value",
    "origins",
    "racing",
    "notes",
)
_COLUMNS: tuple[tuple[str, JustifyMethod], ...] = (
    ("stock", "left"),
    ("model", "left"),
    ("ori-\ngins", "right"),
    ("chosen", "left"),
    ("selection\nMAE %", "right"),
    ("test\nMAE %", "right"),
    ("default\nMAE %", "right"),
    ("naive\nMAE %", "right"),
    ("gain %", "right"),
    ("shrink-\nage", "right"),
    ("SPA p", "right"),
)


def validation_entry(symbol: str, families: Mapping[str, ParamsRecord | str]) -> dict[str, Any]:
    """One stock of `hyperparameter_validation_results.json`, as a JSON object.

    families: by name the record of a search, or the message of one that failed. The guide's
    fields are `stock` and by family `status` (success, failed), `best_params` (the settings
    with `mae` and `mae_pct`), `best_mae`, `best_mae_pct` and `error`. Errors are H sessions
    ahead on the test window, in price units and in % of the mean close. Added are:

    - `selection_mae`, `selection_mae_pct`: of the same setting where it was chosen;
    - `test`, `selection`: scores of chosen, default and naive on the same origins;
    - gains, shrinkage, SPA p, `origins`, `racing`, `notes` of `search_report.summarise`;
    - `test_origins`, `holdout_days`, `prediction_length`, `default_params`, `adapter`, `base`.
    """
    return {"stock": symbol} | {name: _family_entry(found) for name, found in families.items()}


def validation_results(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Content of `hyperparameter_validation_results.json`: the entries, by stock."""
    return sorted((dict(entry) for entry in entries), key=lambda entry: str(entry["stock"]))


def _family_entry(found: ParamsRecord | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"status": "failed", "error": found}
    summary = found.summary
    test, selection = summary["test"], summary["selection"]
    mae, mae_pct = test[CHOSEN]["mae"], test[CHOSEN]["mae_pct"]
    return {
        "status": "success",
        "best_params": {**found.chosen, "mae": mae, "mae_pct": mae_pct},
        "best_mae": mae,
        "best_mae_pct": mae_pct,
        "default_params": found.default,
        "selection_mae": selection[CHOSEN]["mae"],
        "selection_mae_pct": selection[CHOSEN]["mae_pct"],
        "test": test,
        "selection": selection,
        **{name: summary[name] for name in _COPIED},
        "test_origins": test[CHOSEN]["origins"],
        "holdout_days": found.split["holdout_days"],
        "prediction_length": found.split["horizon"],
        "adapter": found.adapter,
        "base": found.base,
    }


def render_params(records: Sequence[ParamsRecord], *, caption: str) -> Table:
    """Searches as a table for a terminal of 100 columns, one row per stock and family.

    The chosen values stand in the order of the names in the title, `off` for None. Errors are
    MAE in % of price: where the setting was chosen, then on the test for the chosen setting,
    the default and naive. gain: of the chosen setting over the default on the test. shrinkage:
    by how many points of gain the selection promised more. SPA p: of the best setting against
    the default, for as many as were tried. caption: printed below.
    """
    from rich.table import Table

    names = dict.fromkeys("/".join(record.chosen) for record in records)
    days = sorted({record.split["holdout_days"] for record in records})
    table = Table(
        title=f"Parameters chosen for {', '.join(map(str, days))} sessions ahead "
        f"({'; '.join(names)})",
        caption=caption,
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for heading, justify in _COLUMNS:
        table.add_column(heading, justify=justify, no_wrap=True)
    for record in records:
        table.add_row(*_cells(record))
    return table


def _cells(record: ParamsRecord) -> list[str]:
    summary = record.summary
    test, selection = summary["test"], summary["selection"]
    values = [written(value) for value in record.chosen.values()]
    return [
        record.symbol,
        record.family,
        str(summary["origins"]),
        "/".join(values),
        _number(selection[CHOSEN]["mae_pct"]),
        *(_number(test[name]["mae_pct"]) for name in (CHOSEN, DEFAULT, NAIVE)),
        _number(summary["expected_gain_pct"], "+.1f"),
        _number(summary["shrinkage_pct"], "+.1f"),
        _number(summary["spa_p_value"]),
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)
