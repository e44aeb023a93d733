"""Error over a grid of inference settings against the default's: a heat map, whole and in small."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from retrain_assets.defs.sparks import MOST_CELLS, cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MOST_AXES = 3


def error_map(table: pd.DataFrame, names: Sequence[str]) -> Figure:
    """Error over a grid of settings as a heat map: red errs more than the default, blue less.

    table: one row a setting, with the columns `names` and `cost`, `dropped_in_round`, `chosen`
    of a search's table, and `against_default`: 100 x (error / the default's error on the same
    origins - 1). Axes are up to three of the settings that vary; the one with the fewest values
    makes the panels. Where more vary, the one that sets the cost is no axis: a cell shows its
    most expensive setting, and of several the one that errs least. A cell with a cross
    was dropped early, so its number is of other origins than the rest; the frame marks the cell
    of the chosen setting.
    """
    from matplotlib.figure import Figure

    axes = map_axes(table, names)
    values = _values(table, axes)
    panel, y, x = _laid_out(values)
    found = _cells(table, axes)
    parts = {"": found}
    if panel is not None:
        parts = {f"{panel} {one}": found[found[panel] == one] for one in values[panel]}
    figure = Figure(figsize=(1.6 + 2.4 * len(parts), 3.0), layout="constrained")
    panes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    limit = max(float(found["against_default"].abs().max()), 1e-9)
    for pane, (title, part) in zip(panes, parts.items(), strict=True):
        pane.set_title(title, fontsize="small")
        image = _draw_pane(pane, part, (x, values[x]), (y, values[y]) if y else None, limit)
    panes[0].set_ylabel(y or "")
    figure.colorbar(image, ax=panes.tolist(), label="error against the default, %")
    if found["dropped_in_round"].notna().any():
        figure.suptitle("x: dropped early, error on the origins it saw", fontsize="small")
    return figure


def small_map(table: pd.DataFrame, names: Sequence[str]) -> str:
    """The heat map as Markdown so short that Dagster's page shows it in place.

    table, names: as for `error_map`. Panels stand side by side. Where that makes too many cells,
    the setting with the fewest values is no axis: a cell shows the best over it.
    """
    axes, over = map_axes(table, names), list[str]()
    while len(found := _cells(table, axes)) > MOST_CELLS and len(axes) > 1:
        values = _values(table, axes)
        over.append(min(axes, key=lambda name: len(values[name])))
        axes.remove(over[-1])
    values = _values(table, axes)
    panel, y, x = _laid_out(values)

    def place(cell: Mapping[Hashable, Any]) -> tuple[int, int]:
        aside = values[panel].index(cell[panel]) * (len(values[x]) + 1) if panel else 0
        return values[y].index(cell[y]) if y else 0, aside + values[x].index(cell[x])

    rows = found.to_dict("records")
    against = {place(cell): float(cell["against_default"]) for cell in rows}
    dot = next((place(cell) for cell in rows if cell["chosen"]), None)
    down = f"down {y}: {', '.join(values[y])}\n\n" if y else ""
    aside = f"side by side {panel}: {', '.join(values[panel])}\n\n" if panel else ""
    best = f"; each the best over {', '.join(over)}" if over else ""
    limit = max((abs(value) for value in against.values() if np.isfinite(value)), default=0.0)
    return cells(
        against,
        dot,
        f"{down}across {x}: {', '.join(values[x])}\n\n{aside}"
        f"blue errs less than the default, red more, at most {limit:.1f} %{best}; dot: the choice",
    )


def map_axes(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The settings that make a map: at most three of those that vary, in the order of `names`.

    Of more than three, one that sets the cost is left out, then those with the fewest values.
    """
    names = [name for name in names if name in table]
    varying = [name for name in names if len(set(table[name].map(_label))) > 1]
    kept = varying or names[:1]
    if len(kept) > MOST_AXES:
        kept = [name for name in kept if not _sets_cost(table, name)]
    ranked = sorted(kept, key=lambda name: -table[name].map(_label).nunique())[:MOST_AXES]
    return [name for name in kept if name in ranked]


def _values(table: pd.DataFrame, axes: Sequence[str]) -> dict[str, list[str]]:
    """The labels of each axis, in the order of the table."""
    return {name: list(dict.fromkeys(table[name].map(_label))) for name in axes}


def _laid_out(values: Mapping[str, Sequence[str]]) -> tuple[str | None, str | None, str]:
    """The settings that make the panels, go down and go across; of fewer than three, no panels."""
    panel = min(values, key=lambda name: len(values[name])) if len(values) == MOST_AXES else None
    *rest, x = (name for name in values if name != panel)
    return panel, rest[0] if rest else None, x


def _sets_cost(table: pd.DataFrame, name: str) -> bool:
    """Whether cost varies, and this setting alone says how much it is."""
    costs = table["cost"].groupby(table[name].map(_label)).nunique()
    return len(set(table["cost"])) > 1 and bool((costs == 1).all())


def _cells(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row a cell: its most expensive setting, of several the best, with labels for values."""
    labelled = table.assign(**{name: table[name].map(_label) for name in axes})
    ordered = labelled.sort_values(["cost", "against_default"], ascending=[False, True])
    chosen = labelled.groupby(list(axes))["chosen"].any()
    kept = ordered.drop_duplicates(list(axes)).drop(columns="chosen")
    return kept.merge(chosen, left_on=list(axes), right_index=True)


def _draw_pane(
    pane: Axes,
    shown: pd.DataFrame,
    x: tuple[str, list[str]],
    y: tuple[str, list[str]] | None,
    limit: float,
) -> AxesImage:
    """The cells in `shown` on one pane. x, y: name of a setting and labels of its values."""
    from matplotlib.patches import Rectangle

    rows = y[1] if y else [""]
    grid = np.full((len(rows), len(x[1])), np.nan)
    for cell in shown.to_dict("records"):
        place = i, j = rows.index(cell[y[0]] if y else ""), x[1].index(cell[x[0]])
        grid[place] = cell["against_default"]
        dropped = pd.notna(cell["dropped_in_round"])
        text = f"{grid[place]:+.1f}" + (" x" if dropped else "")
        pale = abs(grid[place]) < 0.6 * limit
        color = "black" if pale else "white"
        pane.text(j, i, text, ha="center", va="center", fontsize="x-small", color=color)
        if cell["chosen"]:
            pane.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, lw=2, clip_on=False))
    pane.set_xticks(range(len(x[1])), x[1])
    pane.set_yticks(range(len(rows)), rows)
    pane.set_xlabel(x[0])
    return pane.imshow(grid, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")


def _label(value: Any) -> str:
    """A setting's value in words; a filter that is off is missing in a table."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return "off" if pd.isna(value) else f"{value:g}"
