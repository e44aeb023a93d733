"""Small pictures for the pages of the assets, inline in Markdown so that no server is needed."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    from retrain_assets.evaluation.monthly.drawing import Picture

MOST_AXES = 3


def inline(figure: Figure, name: str) -> str:
    """A figure as a Markdown image that carries its own SVG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    return markdown_image(picture.getvalue(), name)


def embedded(drawn: Picture) -> str:
    """A picture of the monthly report as a Markdown image, with what it shows in words."""
    from retrain_assets.evaluation.monthly.drawing import standing_alone

    words = ". ".join(part for part in (drawn.text, drawn.note) if part)
    return f"{markdown_image(standing_alone(drawn).encode(), drawn.title)}\n\n{words}"


def markdown_image(svg: bytes, name: str) -> str:
    """An SVG as a Markdown image that carries it."""
    return f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg).decode()})"


def loss_curve(metrics: dict[str, Any]) -> str:
    """Training loss by step and validation loss by epoch as a Markdown image.

    metrics: of an adapter record; `step_losses` holds one dict a step, `validations` one an
    epoch from 0, which is the base before any step.
    """
    from matplotlib.figure import Figure

    train = [losses["loss"] for losses in metrics["step_losses"]]
    validation = [losses["loss"] for losses in metrics["validations"]]
    per_epoch = len(train) / max(1, len(validation) - 1)
    figure = Figure(figsize=(6.5, 2.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(range(1, len(train) + 1), train, lw=0.8, alpha=0.6, label="training")
    ends = [min(round(i * per_epoch), len(train)) for i in range(len(validation))]
    axes.plot(ends, validation, marker="o", ms=3, label="validation")
    axes.axhline(validation[0], ls=":", lw=1, color="grey", label="base, validation")
    axes.legend(fontsize="small")
    return inline(figure, "losses")


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
    values = {name: list(dict.fromkeys(table[name].map(_label))) for name in axes}
    panel = min(axes, key=lambda name: len(values[name])) if len(axes) == MOST_AXES else None
    *rest, x = (name for name in axes if name != panel)
    y = rest[0] if rest else None
    cells = _cells(table, axes)
    parts = {"": cells}
    if panel is not None:
        parts = {f"{panel} {one}": cells[cells[panel] == one] for one in values[panel]}
    figure = Figure(figsize=(1.6 + 2.4 * len(parts), 3.0), layout="constrained")
    panes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    limit = max(float(cells["against_default"].abs().max()), 1e-9)
    for pane, (title, part) in zip(panes, parts.items(), strict=True):
        pane.set_title(title, fontsize="small")
        image = _draw_pane(pane, part, (x, values[x]), (y, values[y]) if y else None, limit)
    panes[0].set_ylabel(y or "")
    figure.colorbar(image, ax=panes.tolist(), label="error against the default, %")
    if cells["dropped_in_round"].notna().any():
        figure.suptitle("x: dropped early, error on the origins it saw", fontsize="small")
    return figure


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


def _sets_cost(table: pd.DataFrame, name: str) -> bool:
    """Whether cost varies, and this setting alone says how much it is."""
    costs = table["cost"].groupby(table[name].map(_label)).nunique()
    return len(set(table["cost"])) > 1 and bool((costs == 1).all())


def _cells(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """One row a cell: its most expensive setting, of several the best, with labels for values."""
    labelled = table.assign(**{name: table[name].map(_label) for name in axes})
    ordered = labelled.sort_values(["cost", "against_default"], ascending=[False, True])
    chosen = labelled.groupby(list(axes))["chosen"].any()
    cells = ordered.drop_duplicates(list(axes)).drop(columns="chosen")
    return cells.merge(chosen, left_on=list(axes), right_index=True)


def _draw_pane(
    pane: Axes,
    cells: pd.DataFrame,
    x: tuple[str, list[str]],
    y: tuple[str, list[str]] | None,
    limit: float,
) -> AxesImage:
    """The cells of one pane. x, y: name of the setting and labels of its values, in order."""
    from matplotlib.patches import Rectangle

    rows = y[1] if y else [""]
    grid = np.full((len(rows), len(x[1])), np.nan)
    for cell in cells.to_dict("records"):
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
