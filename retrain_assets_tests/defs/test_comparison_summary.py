"""The table of pooled skill on the page of a month's summary."""

from __future__ import annotations

from retrain_assets.defs.comparison_summary import _pooled
from retrain_assets.evaluation.pooled_skill import month_statistics
from retrain_assets_tests.evaluation.records import loss_record


def test_a_first_month_that_is_not_over_has_a_table_too() -> None:
    record = loss_record("A", "2023-08", {"naive": [1.0], "x": [0.5]}, provisional=True)
    (row,) = _pooled(month_statistics([record])).records
    assert list(row.data.values()) == ["x", "+50.0", "-", "-", "-", 0]
