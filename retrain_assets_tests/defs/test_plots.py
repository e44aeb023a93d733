"""Pictures carry themselves, and a heat map shows what the table says."""

from __future__ import annotations

import base64
import itertools
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from matplotlib.figure import Figure

from retrain_assets.defs.plots import error_map, inline, loss_curve, map_axes

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


def test_the_loss_curve_is_an_svg_picture() -> None:
    steps = [{"loss": 2.0 - 0.1 * step} for step in range(8)]
    markdown = loss_curve({"step_losses": steps, "validations": [{"loss": 2.0}, {"loss": 1.5}]})
    head, encoded = markdown.split("base64,")
    assert head == "![losses](data:image/svg+xml;"
    root = ET.fromstring(base64.b64decode(encoded.removesuffix(")")))
    assert root.tag.endswith("svg")


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
