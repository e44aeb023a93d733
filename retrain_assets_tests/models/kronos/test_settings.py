from typing import Any

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.kronos import FAMILY
from retrain_assets.models.kronos.settings import KronosSettings, RowTable

DEFAULT = dict(FAMILY.default_settings)


@pytest.mark.parametrize(
    ("field", "value", "demand"),
    [
        ("temperature", 0, "above 0"),
        ("temperature", -0.5, "above 0"),
        ("temperature", float("nan"), "above 0"),
        ("temperature", None, "above 0"),
        ("temperature", True, "above 0"),
        ("top_k", 0, "at least 1, or None"),
        ("top_k", 2.5, "at least 1, or None"),
        ("top_p", 0, r"in \(0, 1\], or None"),
        ("top_p", 1.01, r"in \(0, 1\], or None"),
        ("top_p", "0.9", r"in \(0, 1\], or None"),
        ("num_samples", 0, "from 1 to 1000"),
        ("num_samples", 1001, "from 1 to 1000"),
        ("num_samples", None, "from 1 to 1000"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(
    field: str, value: Any, demand: str
) -> None:
    with pytest.raises(BadInput, match=f"'{field}' must be .*{demand}"):
        KronosSettings.parse(DEFAULT | {field: value})


def test_unknown_and_missing_settings_are_named() -> None:
    with pytest.raises(BadInput, match="no setting 'topk'"):
        KronosSettings.parse(DEFAULT | {"topk": 3})
    with pytest.raises(BadInput, match="needs the setting 'num_samples'"):
        KronosSettings.parse({"temperature": 1.0, "top_k": None, "top_p": None})


@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1), (None, 1.0), (5000, 0.01), (None, None)])
def test_bounds_are_allowed(top_k: int | None, top_p: float | None) -> None:
    parsed = KronosSettings.parse(DEFAULT | {"top_k": top_k, "top_p": top_p, "num_samples": 1000})
    assert (parsed.top_k, parsed.top_p) == (top_k, top_p)


def test_more_samples_share_the_rows_of_fewer() -> None:
    five, twenty = (KronosSettings(0.6, None, 0.9, n) for n in (5, 20))
    table = RowTable.build([five, twenty, five])
    assert len(table) == 20
    assert table.path.tolist() == list(range(20))
    assert table.shares == (slice(0, 5), slice(0, 20), slice(0, 5))


def test_a_filter_that_filters_nothing_is_no_filter() -> None:
    table = RowTable.build([KronosSettings(1.0, None, p, 3) for p in (None, 1.0)])
    assert len(table) == 3
    assert table.top_k.tolist() == [0, 0, 0]
    assert table.top_p.tolist() == [1, 1, 1]


def test_upstream_ignores_top_p_beside_a_top_k() -> None:
    settings = [KronosSettings(1.0, k, p, 4) for k in (20, None) for p in (0.8, 0.9)]
    assert len(RowTable.build(settings)) == 16
    theirs = RowTable.build(settings, "upstream")
    assert len(theirs) == 12
    assert theirs.shares[0] == theirs.shares[1]
    assert theirs.top_p[theirs.shares[0]].tolist() == [1.0] * 4


def test_the_full_grid_needs_one_row_a_filter_and_path() -> None:
    grid = [
        KronosSettings(t, k, p, n)
        for n in (5, 10, 20, 50)
        for t in (0.5, 0.7, 1.0, 1.2)
        for k in (20, 50, None)
        for p in (0.8, 0.9, 0.95, None)
    ]
    table = RowTable.build(grid)
    assert len(table) == 2400
    for setting, share in zip(grid, table.shares, strict=True):
        assert share.stop - share.start == setting.num_samples
        assert set(table.temperature[share]) == {setting.temperature}
        assert set(table.top_k[share]) == {setting.top_k or 0}
        assert set(table.top_p[share]) == {setting.top_p or 1.0}


def test_no_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="no settings"):
        RowTable.build([])


def test_filters_that_remove_nothing_are_off() -> None:
    usual = KronosSettings(0.7, None, None, 10).filters(None, 1024)
    assert KronosSettings(0.7, None, 1.0, 10).filters(None, 1024) == usual
    assert KronosSettings(0.7, 1024, None, 10).filters(None, 1024) == usual
    assert KronosSettings(0.7, 5000, 1.0, 5).filters(None, 1024) == usual
    assert KronosSettings(0.7, 1023, None, 10).filters(None, 1024) != usual


def test_with_one_token_left_nothing_else_decides() -> None:
    greedy = {KronosSettings(t, 1, p, 5).filters(None, 64) for t in (0.5, 2.0) for p in (0.1, None)}
    assert len(greedy) == 1


def test_upstreams_semantics_leave_half_of_the_guides_filters() -> None:
    grid = [
        KronosSettings(t, k, p, 5)
        for t in (0.5, 0.7, 1.0, 1.2)
        for k in (20, 50, None)
        for p in (0.8, 0.9, 0.95, None)
    ]
    assert len({one.filters(None, 1024) for one in grid}) == 48
    assert len({one.filters("upstream", 1024) for one in grid}) == 24
