"""Pictures carry themselves, and a heat map shows what the table says."""

from __future__ import annotations

import base64
import itertools
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from retrain_assets.defs.error_maps import error_map, map_axes, small_map
from retrain_assets.defs.markdown_images import inline
from retrain_assets.defs.sparks import INLINE, SHADES

NAMES = ["num_samples", "temperature", "top_k", "top_p"]


def grid(**values: list[float | int | None]) -> pd.DataFrame:
    """A table of all combinations; cost is num_samples, and every error differs."""
    rows = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
    table = pd.DataFrame(rows)
    return table.assign(
        cost=table["num_samples"],
        against_default=[float(i) for i in range(len(table))],
        dropped_in_round=pd.array([None] * len(table), dtype="Int64"),
        chosen=False,
    )


@pytest.fixture
def table() -> pd.DataFrame:
    return grid(
        num_samples=[5, 10], temperature=[0.5, 0.7, 1.0], top_k=[20, None], top_p=[0.8, 0.9, None]
    )


def panes(figure: Figure) -> dict[str, list[str]]:
    """Texts in the cells of each pane, row by row, by its title."""
    return {
        pane.get_title(): [text.get_text() for text in pane.texts]
        for pane in figure.axes
        if pane.texts
    }


def test_the_axes_are_the_settings_that_vary_and_of_more_than_three_not_the_cost(
    table: pd.DataFrame,
) -> None:
    assert map_axes(table, NAMES) == ["temperature", "top_k", "top_p"]
    three = ["num_samples", "temperature", "top_k"]
    assert map_axes(table[table["top_p"] == 0.8], NAMES) == three
    only_paths = grid(num_samples=[5, 10, 20], temperature=[0.6], top_k=[None], top_p=[0.9])
    assert map_axes(only_paths, NAMES) == ["num_samples"]
    assert map_axes(only_paths.head(1), NAMES) == ["num_samples"]


def test_a_cell_shows_the_most_expensive_of_its_settings(table: pd.DataFrame) -> None:
    found = panes(error_map(table, NAMES))
    assert list(found) == ["top_k 20", "top_k off"]
    dear = table[(table["num_samples"] == 10) & (table["top_k"] == 20)]
    assert sorted(found["top_k 20"]) == sorted(f"{v:+.1f}" for v in dear["against_default"])


def test_a_setting_that_was_dropped_has_a_cross_and_the_chosen_a_frame(
    table: pd.DataFrame,
) -> None:
    dear = table.index[table["num_samples"] == 10]
    table.loc[dear[0], "dropped_in_round"] = 2
    # The cheap twin of the last cell: the frame marks its cell all the same.
    table.loc[dear[0] - 1, "chosen"] = True
    figure = error_map(table, NAMES)
    crossed = [text for texts in panes(figure).values() for text in texts if text.endswith(" x")]
    assert crossed == [f"{table.loc[dear[0], 'against_default']:+.1f} x"]
    frames = {pane.get_title(): len(pane.patches) for pane in figure.axes if pane.texts}
    assert frames == {"top_k 20": 0, "top_k off": 1}
    assert inline(figure, "errors").startswith("![errors](data:image/svg+xml;base64,")


def test_a_random_subset_leaves_cells_empty(table: pd.DataFrame) -> None:
    part = table.iloc[[0, 7, 20, 33]]
    found = panes(error_map(part, NAMES))
    assert sum(len(texts) for texts in found.values()) == 4


def test_one_setting_is_a_map_of_one_cell() -> None:
    single = grid(num_samples=[5], temperature=[0.6], top_k=[None], top_p=[0.9])
    assert panes(error_map(single, NAMES)) == {"": ["+0.0"]}


def drawn(markdown: str) -> dict[tuple[int, int], str]:
    """The shade of each cell of the map in small, by row and column."""
    svg = ET.fromstring(base64.b64decode(markdown.partition("base64,")[2].partition(")")[0]))
    paths = svg.iter("{http://www.w3.org/2000/svg}path")
    return {
        (int(y), int(x)): path.attrib["stroke"]
        for path in paths
        for x, y in re.findall(r"M(\d+) (\d+)h.9", path.attrib["d"])
    }


def test_in_small_panels_stand_side_by_side(table: pd.DataFrame) -> None:
    table.loc[35, "chosen"] = True
    markdown = small_map(table, NAMES)
    cells = drawn(markdown)
    assert len(markdown) < INLINE
    # Three rows of temperature, and columns of three values of top_p, an empty one between.
    assert {row for row, _ in cells} == {0, 1, 2}
    assert {column for _, column in cells} == {0, 1, 2, 4, 5, 6}
    assert markdown.endswith(
        "down temperature: 0.5, 0.7, 1\n\nacross top_p: 0.8, 0.9, off\n\n"
        "side by side top_k: 20, off\n\n"
        "blue errs less than the default, red more, at most 35.0 %; dot: the choice"
    )


def test_in_small_colours_go_from_less_error_to_more(table: pd.DataFrame) -> None:
    table["against_default"] -= 26.5
    cells = drawn(small_map(table, NAMES))
    # Of the dearer half, from -8.5 to 8.5 in the order of the table.
    order = [
        (row, 4 * panel + column) for row in range(3) for panel in (0, 1) for column in range(3)
    ]
    places = [SHADES.index(cells[place]) for place in order]
    assert places == sorted(places)
    assert set(places) == set(range(len(SHADES)))


def test_in_small_the_setting_with_the_fewest_values_goes_if_there_are_too_many() -> None:
    tenths = [round(0.1 * i, 1) for i in range(1, 9)]
    large = grid(num_samples=[5, 10], temperature=tenths, top_k=[1, 2, 3, 4], top_p=[0.8, 0.9])
    markdown = small_map(large, NAMES)
    cells = drawn(markdown)
    assert len(cells) == 32
    assert "side by side" not in markdown
    assert markdown.endswith("; each the best over top_p; dot: the choice")


@given(st.integers(0, 2**32 - 1))
def test_in_small_it_is_always_short_enough(seed: int) -> None:
    draw = np.random.default_rng(seed)
    varied = {name: list(range(1, draw.integers(2, 9))) for name in NAMES}
    large = grid(**varied)
    large["against_default"] = draw.normal(0, 10.0 ** draw.integers(-3, 3), len(large))
    large.loc[draw.integers(len(large)), "chosen"] = True
    assert len(small_map(large, NAMES)) < INLINE
