"""Time is split once, here: which bars train, choose, and test a model.

A history of `n_bars` is cut from its end into four segments of target bars, oldest first:

    train | validation | selection | test        H = holdout_days, h = horizon

- test: the last h + H bars, touched once;
- selection: S blocks of H bars, where parameters are chosen;
- validation: max(30, h) bars, where early stopping looks;
- train: the rest, contexts and targets both.

A context may reach back into older segments; no two segments share a target bar, and that
is all the embargo there is. Bars are counted by position, 0 = the oldest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from retrain_assets.errors import BadInput, NotEnoughBars
from retrain_assets.models.forecaster import ModelLimits, WindowRange

if TYPE_CHECKING:
    import pandas as pd

MIN_CONTEXT = 128
MIN_TRAIN_WINDOWS = 64
MAX_TRAIN_WINDOWS = 256
"""Windows of one epoch: the training stride is what keeps an epoch at this size."""
MIN_VALIDATION_BARS = 30
MAX_VALIDATION_WINDOWS = 16
MIN_SELECTION_ORIGINS = 8
MAX_SELECTION_ORIGINS = 26
TEST_SESSIONS = 21
"""Sessions the non-overlapping test origins cover at most: about one month."""

SegmentName = Literal["train", "validation", "selection", "test"]
SEGMENTS: tuple[SegmentName, ...] = ("train", "validation", "selection", "test")


class Segment(NamedTuple):
    """Target bars at positions [start, stop)."""

    start: int
    stop: int

    @property
    def bars(self) -> int:
        """Number of bars in the segment."""
        return self.stop - self.start


@dataclass(frozen=True)
class Split:
    """One history cut into segments; everything else follows from these numbers.

    n_bars: bars of the history, up to its cut.
    context: bars a window looks back on, after the caps and shrinks that `notes` tells.
    horizon: bars the plan predicts (h).
    holdout_days: sessions of one holdout forecast (H).
    selection_origins: number of non-overlapping forecasts that choose parameters (S).
    notes: every cap and shrink, in words.
    gap: bars between selection and test that are left alone, because an earlier split tested
        on them.
    fitted: the validation of the split that trained the adapter, where it was another one (see
        `search_split.validation_split`). Train and validation are then that split's, and bars may
        lie between validation and selection.
    """

    n_bars: int
    context: int
    horizon: int
    holdout_days: int
    selection_origins: int
    notes: tuple[str, ...] = ()
    gap: int = 0
    fitted: Segment | None = None

    @property
    def test(self) -> Segment:
        """The last h + H bars."""
        return Segment(self.n_bars - self.horizon - self.holdout_days, self.n_bars)

    @property
    def selection(self) -> Segment:
        """S x H bars before the test, or before the gap in front of it."""
        stop = self.test.start - self.gap
        return Segment(stop - self.selection_origins * self.holdout_days, stop)

    @property
    def validation(self) -> Segment:
        """max(30, h) bars before the selection, or what the adapter's own split had."""
        if self.fitted is not None:
            return self.fitted
        stop = self.selection.start
        return Segment(stop - max(MIN_VALIDATION_BARS, self.horizon), stop)

    @property
    def train(self) -> Segment:
        """All bars before the validation."""
        return Segment(0, self.validation.start)

    @property
    def windows(self) -> int:
        """Number of training windows at stride 1."""
        return self.train.bars - self.context - self.horizon + 1

    @property
    def train_stride(self) -> int:
        """Bars between training windows, so that an epoch has at most 256 of them."""
        return -(-self.windows // MAX_TRAIN_WINDOWS)

    def train_windows(self, stride: int | None = None) -> WindowRange:
        """Training windows, whole in `train`; every `train_stride`-th unless told otherwise."""
        return WindowRange(
            first=self.context,
            stop=self.train.stop,
            context=self.context,
            horizon=self.horizon,
            stride=self.train_stride if stride is None else stride,
        )

    def validation_windows(self) -> WindowRange:
        """At most 16 windows over `validation`, their targets cut at its end.

        Contexts may reach back. With targets that had to lie whole in the segment there would
        be one window for a horizon of 64 bars, and early stopping would follow its noise.
        """
        return WindowRange(
            first=self.validation.start,
            stop=self.validation.stop,
            context=self.context,
            horizon=self.horizon,
            stride=-(-self.validation.bars // MAX_VALIDATION_WINDOWS),
            cut_targets=True,
        )

    def holdout_origins(self, segment: Literal["selection", "test"]) -> tuple[int, ...]:
        """Origins of the H-session forecasts that end at the segment's end, ascending.

        Their targets do not overlap. An origin is the position of the last bar a forecast
        may see: its first target is the next bar. `selection` is covered whole; `test` by
        max(1, floor(21 / H)) forecasts, or by as many as fit in it.
        """
        if segment == "selection":
            stop, count = self.selection.stop, self.selection_origins
        else:
            fitting = self.test.bars // self.holdout_days
            stop, count = self.test.stop, min(_month_of_origins(self.holdout_days), fitting)
        first = stop - count * self.holdout_days - 1
        return tuple(range(first, stop - 1, self.holdout_days))

    def plan_origins(self) -> tuple[int, ...]:
        """The H + 1 daily test origins of the h-bar forecasts, ascending (they overlap)."""
        return tuple(range(self.test.start - 1, self.test.stop - self.horizon))

    def dates(self, sessions: pd.DatetimeIndex) -> dict[str, dict[str, str | int]]:
        """First and last session and number of bars of each segment, for people to read.

        sessions: session labels of the `n_bars` bars, ascending.
        """
        if len(sessions) != self.n_bars:
            raise ValueError(f"{len(sessions)} sessions for a split of {self.n_bars} bars")
        found: dict[str, dict[str, str | int]] = {}
        for name in SEGMENTS:
            segment = getattr(self, name)
            found[name] = {
                "first": str(sessions[segment.start].date()),
                "last": str(sessions[segment.stop - 1].date()),
                "bars": segment.bars,
            }
        return found

    def to_json(self) -> dict[str, Any]:
        """The split as a JSON object; the segments are written out for people."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        segments = {name: list(getattr(self, name)) for name in SEGMENTS}
        fitted = None if self.fitted is None else list(self.fitted)
        return values | {"notes": list(self.notes), "fitted": fitted, "segments": segments}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Split:
        """The split that `to_json` wrote.

        Raises BadInput for a missing field, or when the written segments are not those that
        the other fields imply (then the file was edited, or another rule wrote it).
        """
        value = {"gap": 0, "fitted": None} | dict(value)
        missing = [f.name for f in fields(cls) if f.name not in value]
        if missing:
            raise BadInput(f"the stored split lacks {', '.join(missing)}: train again")
        special = ("notes", "fitted")
        numbers = {f.name: value[f.name] for f in fields(cls) if f.name not in special}
        for name, number in numbers.items():
            if type(number) is not int:
                raise BadInput(f"the stored split has {name} = {number!r}, no whole number")
        fitted = _stored_segment(value["fitted"])
        split = cls(**numbers, notes=tuple(value["notes"]), fitted=fitted)
        written = value.get("segments")
        if written != split.to_json()["segments"]:
            raise BadInput(
                f"the stored split has segments {written}, but its other fields imply "
                f"{split.to_json()['segments']}: train again"
            )
        return split


def _stored_segment(value: Any) -> Segment | None:
    if value is None:
        return None
    if not isinstance(value, list) or [type(end) for end in value] != [int, int]:
        raise BadInput(f"the stored split has fitted = {value!r}, not two whole numbers")
    return Segment(*value)


def make_split(
    n_bars: int, *, context: int, horizon: int, holdout_days: int, limits: ModelLimits
) -> Split:
    """Cut a history into segments, shrinking the request where bars or the model are short.

    First the context is capped to what the model takes (`capped_context`). Then, while fewer
    than 64 training windows remain: (1) the context shrinks, in whole patches, not below 128
    bars; (2) the number of selection origins falls from 26, not below 8; (3) NotEnoughBars.
    Each step taken is told in the split's notes.

    n_bars: bars up to the cut. context, horizon: the plan's, in bars. holdout_days: H, in
    sessions. Raises BadInput for a number out of range or a horizon the model has no room
    for, NotEnoughBars with the number of bars needed.
    """
    check_lengths(horizon, holdout_days)
    # A holdout longer than the horizon is forecast too, and has to fit the model as well.
    context, note = capped_context(context, max(horizon, holdout_days), limits)
    notes = [note] if note else []
    needed = bars_needed(horizon=horizon, holdout_days=holdout_days, patch=limits.patch)
    if n_bars < needed:
        # One holdout day more is one bar more of the test and of each selection origin.
        most = holdout_days - -(-(needed - n_bars) // (MIN_SELECTION_ORIGINS + 1))
        less = f"give a holdout_days of at most {most}" if most >= 1 else "ask for less"
        raise NotEnoughBars(
            f"a prediction length of {horizon} and {holdout_days} holdout days needs "
            f"{needed} bars, has {n_bars}: import older bars, or {less}"
        )
    origins = min(MAX_SELECTION_ORIGINS, MIN_SELECTION_ORIGINS + (n_bars - needed) // holdout_days)
    room = _longest_context(n_bars, horizon, holdout_days, limits.patch)
    if room < context:
        notes.append(
            f"context {context} -> {room}: at least {MIN_TRAIN_WINDOWS} training windows of "
            f"{n_bars} bars must remain"
        )
        context = room
    if origins < MAX_SELECTION_ORIGINS:
        notes.append(
            f"selection origins {MAX_SELECTION_ORIGINS} -> {origins}: the context is at its "
            f"shortest and {n_bars} bars are still too few"
        )
    split = Split(n_bars, context, horizon, holdout_days, origins, tuple(notes))
    return with_test_note(split)


def check_lengths(horizon: int, holdout_days: int) -> None:
    """Raises BadInput naming a length below 1."""
    for name, number in (("prediction_length", horizon), ("holdout_days", holdout_days)):
        if number < 1:
            raise BadInput(f"{name} is {number}: give at least 1")


def capped_context(context: int, horizon: int, limits: ModelLimits) -> tuple[int, str | None]:
    """The longest context <= `context` the model takes with `horizon`, and a note if shorter.

    It is a whole number of the model's patches, and context + horizon <= limits.max_context.
    Raises BadInput if no context of at least 128 bars is left.
    """
    shortest = _shortest_context(limits.patch)
    if context < shortest:
        raise BadInput(f"context_length is {context}: give at least {shortest}")
    room = _whole_patches(limits.max_context - horizon, limits.patch)
    if room < shortest:
        raise BadInput(
            f"a prediction length of {horizon} leaves {max(room, 0)} of the model's "
            f"{limits.max_context} bars for the context, and {shortest} are the least: give at "
            f"most {limits.max_context - shortest}, or choose a base with a longer window"
        )
    fitting = min(_whole_patches(context, limits.patch), room)
    if fitting == context:
        return context, None
    patches = f" in patches of {limits.patch}" if limits.patch > 1 else ""
    return fitting, (
        f"context {context} -> {fitting}: with {horizon} bars to predict the model takes "
        f"{limits.max_context}{patches}"
    )


def halved_context(context: int, limits: ModelLimits) -> int | None:
    """Half a context in whole patches, not below 128 bars; None if it is that short already."""
    shortest = _shortest_context(limits.patch)
    half = max(_whole_patches(context // 2, limits.patch), shortest)
    return half if half < context else None


def bars_needed(*, horizon: int, holdout_days: int, patch: int = 1) -> int:
    """Bars without which a split is refused: 316 for h = 16 and H = 7."""
    return (
        _held_out(horizon, holdout_days, MIN_SELECTION_ORIGINS)
        + _shortest_context(patch)
        + horizon
        + MIN_TRAIN_WINDOWS
        - 1
    )


def selection_start(n_bars: int, *, horizon: int, holdout_days: int) -> int:
    """Position of the first selection bar, before any model is chosen.

    It does not depend on the context asked for, nor on the model as long as its patch divides
    128 bars; with a patch that does not, the model's own selection starts no earlier.
    Raises like `make_split`.
    """
    boundless = ModelLimits(max_context=max(horizon, holdout_days) + MIN_CONTEXT)
    split = make_split(
        n_bars,
        context=MIN_CONTEXT,
        horizon=horizon,
        holdout_days=holdout_days,
        limits=boundless,
    )
    return split.selection.start


def _held_out(horizon: int, holdout_days: int, origins: int) -> int:
    """Bars of test, selection and validation together."""
    return horizon + holdout_days + origins * holdout_days + max(MIN_VALIDATION_BARS, horizon)


def _longest_context(n_bars: int, horizon: int, holdout_days: int, patch: int) -> int:
    """The longest context that leaves 64 training windows beside all 26 selection origins."""
    train = n_bars - _held_out(horizon, holdout_days, MAX_SELECTION_ORIGINS)
    room = _whole_patches(train - horizon - MIN_TRAIN_WINDOWS + 1, patch)
    return max(room, _shortest_context(patch))


def _shortest_context(patch: int) -> int:
    return -(-MIN_CONTEXT // patch) * patch


def _whole_patches(bars: int, patch: int) -> int:
    return bars // patch * patch


def _month_of_origins(holdout_days: int) -> int:
    return max(1, TEST_SESSIONS // holdout_days)


def with_test_note(split: Split) -> Split:
    """The split, with a note if its test is too short for a month of holdout forecasts."""
    wanted, got = _month_of_origins(split.holdout_days), len(split.holdout_origins("test"))
    if got == wanted:
        return split
    note = f"test origins {wanted} -> {got}: the test segment has {split.test.bars} bars"
    return replace(split, notes=(*split.notes, note))
