"""The one split of time: its check values by hand, and what must hold for every history."""

from __future__ import annotations

import itertools
import json

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retrain_assets.errors import BadInput, NotEnoughBars
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.splits import (
    SEGMENTS,
    Split,
    bars_needed,
    capped_context,
    make_split,
    selection_start,
)

KRONOS_MINI = ModelLimits(2048, 1)
KRONOS_SMALL = ModelLimits(512, 1)  # nano and base as well
TOTO_2 = ModelLimits(4096, 32)
TOTO_1 = ModelLimits(4096, 64)


@pytest.mark.parametrize(
    ("n_bars", "context", "horizon", "limits", "got", "windows", "origins"),
    [
        (400, 256, 16, KRONOS_MINI, 128, 64, 20),
        (400, 256, 16, KRONOS_SMALL, 128, 64, 20),
        (400, 256, 16, TOTO_2, 128, 64, 20),
        (400, 256, 16, TOTO_1, 128, 64, 20),
        (700, 512, 32, KRONOS_MINI, 352, 64, 26),
        (700, 512, 32, KRONOS_SMALL, 352, 64, 26),
        (700, 512, 32, TOTO_2, 352, 64, 26),
        (700, 512, 32, TOTO_1, 320, 96, 26),
        (1200, 768, 48, KRONOS_MINI, 768, 100, 26),
        (1200, 768, 48, TOTO_2, 768, 100, 26),
        (1200, 768, 48, TOTO_1, 768, 100, 26),
        (1200, 768, 48, KRONOS_SMALL, 464, 404, 26),
        (1500, 1024, 64, KRONOS_MINI, 1024, 96, 26),
        (1500, 1024, 64, TOTO_2, 1024, 96, 26),
        (1500, 1024, 64, TOTO_1, 1024, 96, 26),
        (1500, 1024, 64, KRONOS_SMALL, 448, 672, 26),
        (1700, 1024, 64, KRONOS_MINI, 1024, 296, 26),
        (1700, 1024, 64, TOTO_2, 1024, 296, 26),
        (1700, 1024, 64, TOTO_1, 1024, 296, 26),
        (1700, 1024, 64, KRONOS_SMALL, 448, 872, 26),
    ],
)
def test_check_values(
    n_bars: int,
    context: int,
    horizon: int,
    limits: ModelLimits,
    got: int,
    windows: int,
    origins: int,
) -> None:
    split = make_split(n_bars, context=context, horizon=horizon, holdout_days=7, limits=limits)
    assert (split.context, split.windows, split.selection_origins) == (got, windows, origins)
    assert bool(split.notes) == (got != context or origins != 26)
    assert len(split.train_windows(stride=1).targets()) == windows


def test_segments_of_400_bars_by_hand() -> None:
    split = make_split(400, context=256, horizon=16, holdout_days=7, limits=KRONOS_SMALL)
    assert split.train == (0, 207)
    assert split.validation == (207, 237)
    assert split.selection == (237, 377)
    assert split.test == (377, 400)
    assert split.holdout_origins("test") == (378, 385, 392)
    assert split.plan_origins() == tuple(range(376, 384))
    selection = split.holdout_origins("selection")
    assert (selection[0], selection[-1], len(selection)) == (236, 369, 20)
    assert split.notes == (
        "context 256 -> 128: at least 64 training windows of 400 bars must remain",
        "selection origins 26 -> 20: the context is at its shortest and 400 bars are still too few",
    )


@pytest.mark.parametrize(("holdout_days", "needed"), [(7, 316), (10, 343), (14, 379)])
@pytest.mark.parametrize("limits", [KRONOS_SMALL, TOTO_2, TOTO_1])
def test_too_few_bars_are_refused_with_the_number_needed(
    holdout_days: int, needed: int, limits: ModelLimits
) -> None:
    def split(n_bars: int) -> Split:
        return make_split(n_bars, context=256, horizon=16, holdout_days=holdout_days, limits=limits)

    assert (split(needed).selection_origins, split(needed).context) == (8, 128)
    with pytest.raises(NotEnoughBars, match=f"needs {needed} bars, has {needed - 1}"):
        split(needed - 1)


@pytest.mark.parametrize(
    ("holdout_days", "origins"), [(1, 17), (2, 9), (3, 6), (4, 5), (7, 3), (10, 2), (30, 1)]
)
def test_number_of_holdout_test_origins(holdout_days: int, origins: int) -> None:
    split = make_split(
        1700, context=256, horizon=16, holdout_days=holdout_days, limits=KRONOS_SMALL
    )
    assert len(split.holdout_origins("test")) == origins
    wanted = max(1, 21 // holdout_days)
    assert any("test origins" in note for note in split.notes) == (origins < wanted)


def test_context_is_capped_by_the_model_and_said() -> None:
    assert capped_context(1024, 64, KRONOS_SMALL) == (
        448,
        "context 1024 -> 448: with 64 bars to predict the model takes 512",
    )
    assert capped_context(500, 7, TOTO_2)[0] == 480
    assert capped_context(448, 64, KRONOS_SMALL) == (448, None)
    assert capped_context(1024, 384, KRONOS_SMALL)[0] == 128


@pytest.mark.parametrize(("windows", "stride"), [(64, 1), (256, 1), (257, 2), (512, 2), (513, 3)])
def test_an_epoch_has_at_most_256_windows(windows: int, stride: int) -> None:
    held_out = 16 + 7 + 26 * 7 + 30
    split = Split(held_out + 128 + 16 + windows - 1, 128, 16, 7, 26)
    assert (split.windows, split.train_stride) == (windows, stride)
    assert len(split.train_windows().targets()) == -(-windows // stride)


def test_a_horizon_without_room_for_a_context_is_refused() -> None:
    with pytest.raises(BadInput, match="give at most 384"):
        make_split(4000, context=256, horizon=385, holdout_days=7, limits=KRONOS_SMALL)


@pytest.mark.parametrize("wrong", [{"context": 127}, {"horizon": 0}, {"holdout_days": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    asked = {"context": 256, "horizon": 16, "holdout_days": 7} | wrong
    with pytest.raises(BadInput, match="give at least"):
        make_split(1000, **asked, limits=KRONOS_SMALL)


def test_json_round_trip_and_an_edited_file() -> None:
    split = make_split(400, context=256, horizon=16, holdout_days=7, limits=KRONOS_SMALL)
    stored = json.loads(json.dumps(split.to_json()))
    assert Split.from_json(stored) == split
    with pytest.raises(BadInput, match="its other fields imply"):
        Split.from_json(stored | {"horizon": 17})
    with pytest.raises(BadInput, match="no whole number"):
        Split.from_json(stored | {"horizon": "16"})
    del stored["context"]
    with pytest.raises(BadInput, match="lacks context"):
        Split.from_json(stored)


def test_dates_name_the_first_and_last_session_of_each_segment() -> None:
    sessions = pd.bdate_range("2022-01-03", periods=400)
    split = make_split(400, context=256, horizon=16, holdout_days=7, limits=KRONOS_SMALL)
    dates = split.dates(sessions)
    assert tuple(dates) == SEGMENTS
    assert dates["train"]["first"] == "2022-01-03"
    assert dates["test"] == {
        "first": str(sessions[377].date()),
        "last": str(sessions[399].date()),
        "bars": 23,
    }
    with pytest.raises(ValueError, match="399 sessions"):
        split.dates(sessions[:-1])


@st.composite
def splits(draw: st.DrawFn) -> tuple[Split, ModelLimits, int]:
    """Any split that is not refused, its model's limits and the context asked for."""
    limits = draw(st.sampled_from([KRONOS_MINI, KRONOS_SMALL, TOTO_2, TOTO_1]))
    horizon = draw(st.integers(1, 96))
    holdout_days = draw(st.integers(1, 30))
    context = draw(st.integers(128, 1100))
    needed = bars_needed(horizon=horizon, holdout_days=holdout_days)
    n_bars = needed + draw(st.integers(0, 2500))
    split = make_split(
        n_bars, context=context, horizon=horizon, holdout_days=holdout_days, limits=limits
    )
    return split, limits, context


@given(splits())
def test_segments_are_adjacent_and_end_at_the_cut(case: tuple[Split, ModelLimits, int]) -> None:
    split, _, _ = case
    segments = [split.train, split.validation, split.selection, split.test]
    assert segments[0].start == 0
    assert segments[-1].stop == split.n_bars
    assert all(a.stop == b.start for a, b in itertools.pairwise(segments))
    assert all(segment.bars > 0 for segment in segments)


@given(splits())
def test_no_window_reaches_into_a_later_segment(case: tuple[Split, ModelLimits, int]) -> None:
    split, _, _ = case
    train = split.train_windows()
    firsts = train.targets()
    assert firsts[0] - train.context == 0
    assert firsts[-1] + train.horizon <= split.train.stop
    assert split.windows >= 64
    assert 32 <= len(firsts) <= 256
    validation = split.validation_windows()
    firsts = validation.targets()
    assert 8 <= len(firsts) <= 16
    assert firsts[0] == split.validation.start
    assert firsts[0] - validation.context >= 0
    assert firsts[-1] < split.validation.stop == validation.stop
    assert validation.cut_targets


@given(splits())
def test_every_origin_has_its_context_and_its_targets_in_its_segment(
    case: tuple[Split, ModelLimits, int],
) -> None:
    split, _, _ = case
    days = split.holdout_days
    groups = [
        (split.selection, split.holdout_origins("selection"), days),
        (split.test, split.holdout_origins("test"), days),
        (split.test, split.plan_origins(), split.horizon),
    ]
    for segment, origins, steps in groups:
        assert list(origins) == sorted(set(origins))
        assert origins[0] + 1 >= segment.start
        assert origins[0] + 1 >= split.context
        assert origins[-1] + steps == segment.stop - 1
    assert split.holdout_origins("selection")[0] + 1 == split.selection.start
    assert split.plan_origins()[0] + 1 == split.test.start
    assert len(split.plan_origins()) == days + 1
    for origins in (groups[0][1], groups[1][1]):
        assert all(b - a == days for a, b in itertools.pairwise(origins))


@given(splits())
def test_shrinking_is_said_ordered_and_never_below_its_minima(
    case: tuple[Split, ModelLimits, int],
) -> None:
    split, limits, asked = case
    assert 128 <= split.context <= asked
    assert split.context % limits.patch == 0
    assert split.context + split.horizon <= limits.max_context
    assert 8 <= split.selection_origins <= 26
    if split.selection_origins < 26:
        assert split.context == 128
        one_more = split.windows - split.holdout_days
        assert one_more < 64
    capped, _ = capped_context(asked, split.horizon, limits)
    if split.context < capped and split.selection_origins == 26:
        assert split.windows - limits.patch < 64
    assert any("context" in note for note in split.notes) >= (split.context != asked)
    assert Split.from_json(split.to_json()) == split


@given(splits())
@settings(max_examples=50)
def test_more_bars_never_shrink_anything(case: tuple[Split, ModelLimits, int]) -> None:
    split, limits, asked = case
    longer = make_split(
        split.n_bars + 1,
        context=asked,
        horizon=split.horizon,
        holdout_days=split.holdout_days,
        limits=limits,
    )
    assert longer.context >= split.context
    assert longer.selection_origins >= split.selection_origins


@given(splits())
@settings(max_examples=50)
def test_the_selection_start_is_known_before_the_model(
    case: tuple[Split, ModelLimits, int],
) -> None:
    split, _, _ = case
    start = selection_start(split.n_bars, horizon=split.horizon, holdout_days=split.holdout_days)
    assert start == split.selection.start


@given(st.integers(0, 900), st.integers(1, 96), st.integers(1, 30))
@settings(max_examples=50)
def test_refused_exactly_below_the_bars_needed(n: int, horizon: int, days: int) -> None:
    needed = bars_needed(horizon=horizon, holdout_days=days)
    assume(n < needed)
    with pytest.raises(NotEnoughBars, match=str(needed)):
        make_split(n, context=256, horizon=horizon, holdout_days=days, limits=KRONOS_SMALL)


def test_a_holdout_longer_than_the_horizon_fits_the_model_too() -> None:
    split = make_split(3000, context=512, horizon=16, holdout_days=60, limits=ModelLimits(512))
    assert split.context == 512 - 60


def test_a_holdout_too_long_is_told_the_longest() -> None:
    limits = ModelLimits(2048)
    with pytest.raises(NotEnoughBars, match="give a holdout_days of at most ") as refused:
        make_split(1000, context=128, horizon=32, holdout_days=300, limits=limits)
    most = int(str(refused.value).rpartition(" ")[2])
    make_split(1000, context=128, horizon=32, holdout_days=most, limits=limits)
    with pytest.raises(NotEnoughBars):
        make_split(1000, context=128, horizon=32, holdout_days=most + 1, limits=limits)
    with pytest.raises(NotEnoughBars, match="or ask for less"):
        make_split(200, context=128, horizon=16, holdout_days=7, limits=limits)
