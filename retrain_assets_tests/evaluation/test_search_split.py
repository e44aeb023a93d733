"""The split for other lengths than an adapter was trained for: by hand, and what must hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.search_split import validation_split
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.splits import Split, make_split

SMALL = ModelLimits(512)
STORED = make_split(1000, context=464, horizon=48, holdout_days=7, limits=SMALL)


def cut(holdout_days: int | None, prediction_length: int | None, stored: Split = STORED) -> Split:
    return validation_split(
        stored,
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        limits=SMALL,
        symbol="SPY",
        month="2023-08",
    )


def test_the_stored_split_serves_its_own_lengths() -> None:
    assert cut(None, None) is STORED
    assert cut(7, None) is cut(None, 48) is cut(7, 48) is STORED


def test_a_longer_test_drops_the_selection_origins_it_reaches() -> None:
    split = cut(7, 128)
    assert split.test == (865, 1000)
    assert (split.selection, split.selection_origins) == ((767, 865), 14)
    assert (split.gap, split.context) == (0, 384)
    assert (split.train, split.validation) == (STORED.train, STORED.validation)
    assert split.notes == (
        "context 464 -> 384: with 128 bars to predict the model takes 512",
        "selection origins 26 -> 14: 102 bars lie between the adapter's validation and the tests",
    )


def test_what_a_stored_test_used_is_not_selected_on() -> None:
    split = cut(7, 16)
    assert split.test == (977, 1000)
    assert split.selection == STORED.selection
    assert split.gap == 32
    assert split.holdout_origins("selection")[-1] + 7 == 944
    assert any("32 bars before the test are left alone" in note for note in split.notes)


def test_the_context_leaves_room_for_the_longer_of_both_lengths() -> None:
    stored = make_split(3000, context=496, horizon=16, holdout_days=7, limits=SMALL)
    assert cut(20, None, stored).context == 492


@pytest.mark.parametrize(
    ("holdout_days", "prediction_length", "says"),
    [
        (14, 128, r"holdout_days is 14 and prediction_length 128: 6 selection origins are left"),
        (
            14,
            128,
            r"retrain run --stocks SPY --month 2023-08 --holdout-days 14 --prediction-length 128$",
        ),
        (7, 400, r"no adapter of this base predicts more than 384 bars$"),
        (14, 128, r"give a holdout_days of at most 12;"),
        (500, None, r"holdout_days is 500 .* the test needs 548 bars, and 237 did not fit"),
        (500, None, r"at most 21; no adapter of this base predicts more than 384 bars"),
        (None, 235, r"a prediction_length of at most 174, at a holdout_days of 7"),
        (0, None, "holdout_days is 0: give at least 1"),
        (None, -5, "prediction_length is -5: give at least 1"),
    ],
)
def test_too_long_a_test_is_refused(
    holdout_days: int | None, prediction_length: int | None, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        cut(holdout_days, prediction_length)


def test_a_horizon_beyond_the_cache_limit_is_refused() -> None:
    stored = make_split(6000, context=464, horizon=48, holdout_days=30, limits=SMALL)
    assert cut(None, 384, stored).context == 128
    with pytest.raises(BadInput, match="give at most 384"):
        cut(None, 385, stored)


def test_json_round_trip_and_an_edited_file() -> None:
    split = cut(7, 16)
    stored = json.loads(json.dumps(split.to_json()))
    assert Split.from_json(stored) == split
    for edited in ({"gap": 0}, {"fitted": None}, {"fitted": [1, 2]}):
        with pytest.raises(BadInput, match="its other fields imply"):
            Split.from_json(stored | edited)
    with pytest.raises(BadInput, match="not two whole numbers"):
        Split.from_json(stored | {"fitted": [1]})


def test_a_split_written_without_gap_and_fitted_is_read() -> None:
    stored = STORED.to_json()
    del stored["gap"], stored["fitted"]
    assert Split.from_json(stored) == STORED


@st.composite
def requests(draw: st.DrawFn) -> tuple[Split, int, int]:
    stored = make_split(
        draw(st.integers(480, 3000)),
        context=256,
        horizon=draw(st.integers(1, 64)),
        holdout_days=draw(st.integers(1, 10)),
        limits=SMALL,
    )
    return stored, draw(st.integers(1, 30)), draw(st.integers(1, 130))


@given(requests())
def test_no_bar_is_used_twice(case: tuple[Split, int, int]) -> None:
    stored, days, horizon = case
    try:
        split = cut(days, horizon, stored)
    except BadInput:
        assume(False)
    assert split.test == (stored.n_bars - horizon - days, stored.n_bars)
    assert stored.validation.stop <= split.selection.start
    assert split.selection.stop <= min(split.test.start, stored.test.start)
    assert split.selection.bars == split.selection_origins * days
    assert 8 <= split.selection_origins <= 26
    if split.selection_origins < 26:
        assert split.selection.start - stored.validation.stop < days
    assert 128 <= split.context <= stored.context
    assert split.context + max(horizon, days) <= SMALL.max_context
    assert split.holdout_origins("selection")[0] + 1 >= split.context
    assert Split.from_json(json.loads(json.dumps(split.to_json()))) == split


@given(requests())
def test_a_refusal_names_the_longest_holdout_that_is_not_refused(
    case: tuple[Split, int, int],
) -> None:
    stored, days, horizon = case
    try:
        cut(days, horizon, stored)
        assume(False)
    except BadInput as error:
        message = str(error)
    if "a holdout_days of at most" in message:
        most = int(message.split("a holdout_days of at most ")[1].split(";")[0])
        assert cut(most, horizon, stored)
        with pytest.raises(BadInput):
            cut(most + 1, horizon, stored)
    else:
        most = int(message.split("a prediction_length of at most ")[1].split(",")[0])
        assert cut(None, most, stored)
        with pytest.raises(BadInput):
            cut(None, most + 1, stored)
