"""The split for choosing settings of a trained adapter at other lengths than it was trained for."""

from __future__ import annotations

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import ModelLimits
from retrain_assets.training.splits import (
    MAX_SELECTION_ORIGINS,
    MIN_CONTEXT,
    MIN_SELECTION_ORIGINS,
    Segment,
    Split,
    bars_needed,
    capped_context,
    check_lengths,
    with_test_note,
)


def validation_split(
    stored: Split,
    *,
    holdout_days: int | None,
    prediction_length: int | None,
    limits: ModelLimits,
    symbol: str,
    month: str,
) -> Split:
    """Cut the bars that an adapter was not fitted on into selection and test, anew.

    stored: the split the adapter was trained with; it is returned when nothing else is asked
    for. holdout_days (H), prediction_length (h): what to test, each the stored one where None.
    symbol, month: for the message.

    The test is the last h + H bars. Selection takes the latest whole blocks of H bars, 26 at
    most, among those after the stored validation and before both tests: earlier bars trained
    the adapter or stopped its training, later ones are or were tested on. The context is the
    stored one, cut until it fits the model beside the longer of h and H, as far as 128 bars: a
    forecast never rolls its window.

    Raises BadInput for lengths that leave fewer than 8 selection origins, with the largest
    holdout this adapter allows and the command that would serve; and for a horizon that leaves
    the model no context of 128 bars.
    """
    days = stored.holdout_days if holdout_days is None else holdout_days
    horizon = stored.horizon if prediction_length is None else prediction_length
    if (days, horizon) == (stored.holdout_days, stored.horizon):
        return stored
    check_lengths(horizon, days)
    test_start = stored.n_bars - horizon - days
    free = Segment(stored.validation.stop, min(test_start, stored.test.start))
    origins = min(MAX_SELECTION_ORIGINS, max(0, free.bars) // days)
    if origins < MIN_SELECTION_ORIGINS:
        raise BadInput(
            _no_room(stored, horizon, days, origins, limits, f"{symbol} --month {month}")
        )
    context, cut = capped_context(stored.context, max(horizon, days), limits)
    gap = test_start - free.stop
    notes = [cut] if cut else []
    if origins < MAX_SELECTION_ORIGINS:
        notes.append(
            f"selection origins {MAX_SELECTION_ORIGINS} -> {origins}: {free.bars} bars lie "
            "between the adapter's validation and the tests"
        )
    if gap:
        notes.append(f"{gap} bars before the test are left alone: an earlier test used them")
    return with_test_note(
        Split(
            n_bars=stored.n_bars,
            context=context,
            horizon=horizon,
            holdout_days=days,
            selection_origins=origins,
            notes=tuple(notes),
            gap=gap,
            fitted=stored.validation,
        )
    )


def _no_room(
    stored: Split, horizon: int, days: int, origins: int, limits: ModelLimits, stocks: str
) -> str:
    """Why these lengths cannot be tested with this adapter, and what can."""
    unfitted = stored.n_bars - stored.validation.stop
    if horizon + days > unfitted:
        reason = f"the test needs {horizon + days} bars, and {unfitted} did not fit the adapter"
    else:
        reason = f"{origins} selection origins are left, and {MIN_SELECTION_ORIGINS} are needed"
    longest = _longest_holdout(stored, horizon)
    if longest >= 1:
        allowed = f"with this adapter give a holdout_days of at most {longest}"
    else:
        most = unfitted - (MIN_SELECTION_ORIGINS + 1) * stored.holdout_days
        allowed = (
            f"with this adapter give a prediction_length of at most {most}, "
            f"at a holdout_days of {stored.holdout_days}"
        )
    needed = bars_needed(horizon=horizon, holdout_days=days, patch=limits.patch)
    most = limits.max_context - MIN_CONTEXT
    if max(horizon, days) > most:
        other = f"no adapter of this base predicts more than {most} bars"
    elif needed > stored.n_bars:
        other = f"a new adapter for these lengths needs {needed} bars, there are {stored.n_bars}"
    else:
        other = (
            "or train an adapter for these lengths: retrain run "
            f"--stocks {stocks} --holdout-days {days} --prediction-length {horizon}"
        )
    return f"holdout_days is {days} and prediction_length {horizon}: {reason}; {allowed}; {other}"


def _longest_holdout(stored: Split, horizon: int) -> int:
    """The largest holdout_days that leaves 8 selection origins at this horizon."""
    unfitted = stored.n_bars - stored.validation.stop
    before_test = stored.test.start - stored.validation.stop
    return min(
        (unfitted - horizon) // (MIN_SELECTION_ORIGINS + 1), before_test // MIN_SELECTION_ORIGINS
    )
