"""What every family asks of its windows, and how it finds the network to run them through."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import LoadedModel, Window

if TYPE_CHECKING:
    from torch import nn


def common_shape(windows: Sequence[Window], model: LoadedModel) -> tuple[int, int]:
    """Context and steps that all windows of a call share, in bars.

    Raises BadInput if there are none, if they differ, or if the base cannot take them.
    """
    if not windows:
        raise BadInput("no windows to forecast: give at least one")
    shapes = {(len(window.bars), len(window.future_sessions)) for window in windows}
    if len(shapes) > 1:
        raise BadInput(
            f"windows of one call must have the same context and steps, not {sorted(shapes)}"
        )
    context, steps = shapes.pop()
    if context < 1 or steps < 1:
        raise BadInput(f"a window needs context and steps, not {context} and {steps} bars")
    limit = model.limits.max_context
    if context + steps > limit:
        raise BadInput(
            f"context {context} + {steps} steps exceed the {limit} bars that base "
            f"{model.base!r} takes; use a context of at most "
            f"max_context - steps = {limit - steps} bars"
        )
    return context, steps


def checked_options(
    options: Mapping[str, Any] | None, known: Collection[str], title: str
) -> dict[str, Any]:
    """Options of a forecaster; raises BadInput naming those that the family `title` has not."""
    given = dict(options or {})
    if unknown := sorted(set(given) - set(known)):
        raise BadInput(f"{title} has no option {', '.join(unknown)}: use {', '.join(known)}")
    return given


def require_finite(
    values: NDArray[np.float64], names: Sequence[str], sessions: pd.Series[pd.Timestamp]
) -> None:
    """Raise BadInput naming the first session and column that is not a finite number.

    values: (bar, column), columns as in `names`, rows as in `sessions`.
    """
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0]
        session = pd.Timestamp(sessions.iloc[row])
        raise BadInput(
            f"bar of {session:%Y-%m-%d} (row {row}): {names[column]} is "
            f"{values[row, column]}; repair or drop the bar and import the file again"
        )


def unwrapped(module: nn.Module) -> nn.Module:
    """The network itself, with an adapter's layers in place, from a plain or a PEFT module."""
    unwrap = getattr(module, "get_base_model", None)
    inner: nn.Module = unwrap() if unwrap is not None else module
    return inner


@contextlib.contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules in evaluation mode, so that no dropout acts; training mode returns after."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
