"""Pictures so small that Dagster's page shows them at once: lines and coloured cells without axes.

The page draws Markdown of less than a thousand characters in place, and anything longer behind a
link. Plotting libraries write tens of thousands, so these few lines of SVG are written by hand; the
whole picture lies behind the link beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from retrain_assets.defs.markdown_images import markdown_image

INLINE = 1000
"""Characters of Markdown from which on Dagster's page shows a link instead."""
INK, FAINT, FIRST, SECOND = "#333", "#aaa", "#16b", "#b50"
NAME = "in small"
"""What every such picture is called."""
_WIDTH, _HEIGHT, _EDGE = 300, 60, 2
_MOST = 16
"""Points of a line."""
MOST_CELLS = 32
SHADES = ("#26a", "#9ce", "#ddd", "#fa8", "#b23")
"""Of cells: far below nothing, below, about nothing, above, far above."""
_CELL = 24, 14
"""Pixels from one cell to the next, across and down."""


def spark(lines: Mapping[str, tuple[ArrayLike, ArrayLike]], words: str) -> str:
    """Lines over common axes as a Markdown image, with a sentence below.

    lines: by colour the x and the y of a line, ascending in x; what is no number is left out. At
    most three, since the whole must stay shorter than `INLINE`. words: what they show.
    """
    kept = {color: _thinned(*line) for color, line in lines.items()}
    kept = {color: line for color, line in kept.items() if len(line[0])}
    if not kept:
        return words
    low, high = (
        [reduce(np.concatenate([line[axis] for line in kept.values()])) for axis in (0, 1)]
        for reduce in (np.min, np.max)
    )
    paths = "".join(
        f"<polyline points='{_points(line, low, high)}' stroke='{color}'/>"
        for color, line in kept.items()
    )
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{_HEIGHT}'>"
        f"<g fill='none' stroke-width='2'>{paths}</g></svg>"
    )
    return f"{markdown_image(svg.encode(), NAME)}\n\n{words}"


def cells(
    values: Mapping[tuple[int, int], float], marked: tuple[int, int] | None, words: str
) -> str:
    """Cells coloured by their value as a Markdown image, with a sentence below.

    values: by row and column from the top left; at most `MOST_CELLS`, since the whole must stay
    shorter than `INLINE`. Five shades go from the largest absolute value's negative over nothing to
    itself; what is no number is left out. marked: the cell that has a dot. words: what
    they show.
    """
    finite = {place: value for place, value in values.items() if np.isfinite(value)}
    if not finite or len(finite) > MOST_CELLS:
        return words
    limit = max(map(abs, finite.values())) or 1.0
    middle = len(SHADES) // 2
    paths = dict.fromkeys(SHADES, "")
    for (row, column), value in finite.items():
        shade = SHADES[middle + round(value / limit * middle)]
        paths[shade] += f"M{column} {row}h.9"
    drawn = "".join(f"<path d='{path}' stroke='{c}'/>" for c, path in paths.items() if path)
    if marked is not None:
        row, column = marked
        drawn += f"<path d='M{column}.3 {row}h.3' stroke='#000' stroke-width='.4'/>"
    high, wide = (1 + max(place[axis] for place in finite) for axis in (0, 1))
    svg = (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{wide * _CELL[0]}' "
        f"height='{high * _CELL[1]}' viewBox='0 -.5 {wide} {high}' preserveAspectRatio='none'>"
        f"<g stroke-width='.9'>{drawn}</g></svg>"
    )
    return f"{markdown_image(svg.encode(), NAME)}\n\n{words}"


def _thinned(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The finite points, at most `_MOST`, evenly picked, first and last among them."""
    across, up = np.asarray(x, np.float64), np.asarray(y, np.float64)
    finite = np.isfinite(across) & np.isfinite(up)
    across, up = across[finite], up[finite]
    if len(across) > _MOST:
        picked = np.linspace(0, len(across) - 1, _MOST).round().astype(int)
        across, up = across[picked], up[picked]
    return across, up


def _points(
    line: tuple[np.ndarray, np.ndarray], low: Sequence[float], high: Sequence[float]
) -> str:
    """Whole pixels, from the lower left corner of the data to the upper right one."""
    x, y = (
        (values - least) / ((most - least) or 1.0)
        for values, least, most in zip(line, low, high, strict=True)
    )
    across = (_EDGE + x * (_WIDTH - 2 * _EDGE)).round().astype(int)
    down = (_HEIGHT - _EDGE - y * (_HEIGHT - 2 * _EDGE)).round().astype(int)
    return " ".join(f"{i},{j}" for i, j in zip(across, down, strict=True))
