"""What a search of inference parameters found: for MLflow, for a partition's page, in one line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd

from retrain_assets.defs.error_maps import error_map, small_map
from retrain_assets.defs.markdown_images import inline
from retrain_assets.defs.tracking import TrackedRun, flat_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.evaluation.search import SearchResult

_ROWS = 10  # of the table, on a partition's page


@dataclass(frozen=True)
class SearchMaps:
    """Error over the grid against the default's: the figure, and Markdown that shows it small."""

    whole: Figure
    small: str


def search_maps(result: SearchResult) -> SearchMaps:
    """Both maps of a search, each setting on the origins it was seen on."""
    losses = result.losses[[str(row) for row in result.table.index]].to_numpy()
    default = result.losses["default"].to_numpy() @ ~np.isnan(losses)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * (np.nansum(losses, axis=0) / default - 1)
    table, names = result.table.assign(against_default=change), list(result.default)
    return SearchMaps(error_map(table, names), small_map(table, names))


def log_search(
    run: TrackedRun, record: ParamsRecord, table: pd.DataFrame, folder: Path, maps: SearchMaps
) -> None:
    """Store a search in its MLflow run: best parameters, every score, table, files and map."""
    racing = {f"racing.{name}": value for name, value in (record.summary["racing"] or {}).items()}
    run.log_params({f"best.{name}": value for name, value in record.chosen.items()} | racing)
    run.log_metrics([(0, flat_numbers(record.summary))])
    run.log_folder(folder)
    run.log_table(table, "grid.csv")
    run.log_figure(maps.whole, "error_map.svg")


def search_metadata(
    record: ParamsRecord, table: pd.DataFrame, folder: Path, maps: SearchMaps
) -> dict[str, Any]:
    """What the page of one partition shows."""
    found, test = record.summary, record.summary["test"]
    # Those that stayed to the end first, then those that stayed the longest.
    stayed = ["dropped_in_round", "mae"]
    best = table.sort_values(stayed, ascending=[False, True], na_position="first").head(_ROWS)
    shown = best.astype(object).where(best.notna(), None)
    rows = [dict(zip(shown.columns, row, strict=True)) for row in shown.to_numpy()]
    return {
        "errors": dg.MetadataValue.md(maps.small),
        "error map": dg.MetadataValue.md(inline(maps.whole, "errors")),
        "chosen": dg.MetadataValue.json(record.chosen),
        **{f"test MAE % of {name}": test[name]["mae_pct"] for name in test},
        "expected gain % over the default": found["expected_gain_pct"],
        "shrinkage, points": found["shrinkage_pct"],
        "SPA p of a gain over the default": found["spa_p_value"],
        "selection origins": found["origins"],
        "settings": found["settings"],
        "best rows": dg.MetadataValue.table([dg.TableRecord(row) for row in rows]),
        "folder": dg.MetadataValue.path(folder),
        "notes": dg.MetadataValue.json(found["notes"]),
        "dates": dg.MetadataValue.json(record.split_dates),
    }


def in_words(record: ParamsRecord) -> str:
    """The choice and its score in one line."""
    from retrain_assets.evaluation.search_results import words

    test = record.summary["test"]
    scores = ", ".join(f"{name} {test[name]['mae_pct']:.2f} %" for name in test)
    return f"{words(record.chosen)}; on the test {scores}"
