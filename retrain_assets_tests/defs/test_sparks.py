"""Pictures in small stay below what Dagster's page shows in place, whatever they draw."""

from __future__ import annotations

import base64
import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain_assets.defs.sparks import FAINT, FIRST, INK, INLINE, spark

WORDS = "validation loss 12.345 to 11.345, best after epoch 100 of 100"


def points(markdown: str) -> list[list[tuple[int, int]]]:
    """The corners of each line that is drawn."""
    encoded = re.search(r"base64,([^)]+)\)", markdown)
    assert encoded
    svg = ElementTree.fromstring(base64.b64decode(encoded[1]))
    drawn = [line.get("points", "").split() for line in svg.iter() if line.get("points")]
    return [[tuple(map(int, p.split(","))) for p in line] for line in drawn]  # type: ignore[misc]


def test_lines_share_their_axes_and_fill_the_picture() -> None:
    drawn = points(spark({FIRST: ([0, 1, 2], [1.0, 3.0, 2.0]), FAINT: ([0, 2], [1.0, 1.0])}, WORDS))
    assert drawn == [[(2, 58), (150, 2), (298, 30)], [(2, 58), (298, 58)]]


def test_what_is_no_number_is_left_out() -> None:
    (line,) = points(spark({FIRST: ([0, 1, 2], [1.0, math.nan, 2.0])}, WORDS))
    assert len(line) == 2
    assert spark({FIRST: ([0], [math.inf])}, WORDS) == WORDS


def test_a_level_line_is_drawn_all_the_same() -> None:
    (line,) = points(spark({FIRST: ([5, 5], [7.0, 7.0])}, WORDS))
    assert line == [(2, 58), (2, 58)]


FINITE = st.floats(-1e12, 1e12)


@given(st.lists(FINITE, min_size=1, max_size=400), st.sampled_from(range(1, 4)))
def test_it_is_always_short_enough(values: list[float], count: int) -> None:
    lines = dict.fromkeys((INK, FAINT, FIRST)[:count], (range(len(values)), values))
    assert len(spark(lines, WORDS)) < INLINE


def test_first_and_last_of_many_points_are_kept() -> None:
    values = [float(v) for v in range(500)]
    (line,) = points(spark({FIRST: (range(500), values)}, WORDS))
    assert line[0] == (2, 58)
    assert line[-1] == pytest.approx((298, 2))
