"""Numbers on Dagster's pages have as many digits as a person reads."""

from __future__ import annotations

import math

import dagster as dg
import pytest

from retrain_assets.defs.legible import legible


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (2.3157775628613355, 2.316),
        (0.00012345678, 0.0001235),
        (187.654321, 187.7),
        (48213.7, 48214.0),
    ],
)
def test_four_digits_are_left(value: float, told: float) -> None:
    assert legible({"x": value, "y": -value}) == {"x": told, "y": -told}


def test_what_is_no_number_stays() -> None:
    path = dg.MetadataValue.path("data")
    kept = {"count": 123456, "done": True, "word": "easy", "none": None, "path": path}
    assert legible(kept) == kept
    assert math.isnan(legible({"x": math.nan})["x"])
    assert legible({"x": math.inf}) == {"x": math.inf}


def test_tables_are_rounded_too_and_keep_their_columns() -> None:
    records = [
        dg.TableRecord({"stock": "AAA", "mae": 1 / 3}),
        dg.TableRecord({"stock": "BBB", "mae": 2.0}),
    ]
    before = dg.MetadataValue.table(records)
    table = legible({"scores": before})["scores"]
    assert [record.data["mae"] for record in table.records] == [0.3333, 2.0]
    assert table.schema == before.schema
