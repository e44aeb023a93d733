"""A temperature on a mixture: the distribution whose density is p(y)^(1/tau), renormalised.

The power of a sum has no closed form; `panels` integrates it, to an accuracy that is stated at
`TemperedMixture` and without random numbers.

Axes: `...` the batch, n elements of it in one row, q questions to an element, K components.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from retrain_assets.errors import BadInput
from retrain_assets.models.toto.panels import Table
from retrain_assets.models.toto.powers import Powers, Resolution
from retrain_assets.models.toto.predictive import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    Floats,
    checked_levels,
)

if TYPE_CHECKING:
    from retrain_assets.models.toto.mixture import StudentMixture

FINE = Resolution(
    heights=(0.8, 2.0, 3.2, 4.4, 5.6, 6.8),
    warmest=(0.0, 0.0, 0.2, 0.3, 0.45, 0.6),
    far=(5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0),
    nodes=8,
    steps=8,
)
"""What quantiles and means are computed with."""

COARSE = Resolution(
    heights=(1.3, 3.8), warmest=(0.0, 0.0), far=(3.0, 8.0, 16.0), nodes=4, steps=3, drawing=True
)
"""What draws are computed with.

For random mixtures of 24 a draw is off by 3e-4 standard deviations on average over the levels, at
worst by 3e-3 of them, and the draws' own deviation by .3 percent. Two separate modes come to 1e-2;
scales a million apart to a few of that, their probabilities to 1e-2, where it is worth `FINE`.
82,000 elements of 24 take 7 s of a CPU core, 256 draws of each of 320 take .2 s.
"""

_LEAST_UNIFORM = 2.0**-54
"""What a uniform number of 0 counts as where its inverse CDF is taken."""

_FEW = 12  # components up to which there is time for more nodes
_MANY_NODES = 14
_POINTS = 2**16  # values of the density at once: arrays that stay in the processor's cache
_KEPT = 1024  # elements whose tables are kept from one question to the next: some 20 MB


@dataclass(frozen=True, eq=False)
class TemperedMixture:
    """p^(1/tau) of a mixture, renormalised; made by `StudentMixture.temper`.

    parent: the mixture p, df from 2 up. tau: from `MIN_TEMPERATURE` to `MAX_TEMPERATURE`.
    drawing: the resolution of `sample`. Raises BadInput for a tau or a df out of range.

    Measured against quadrature ten times as fine, tau .1 to 1.25. Random mixtures of 24: quantiles
    are off by at most 3e-8 of the middle half's width, means by 7e-9 of E|Y - Y'|. Awkward ones
    (two modes, one live component of 24, df 2, parts 1e6 scales apart): 2e-7 and 4e-8; with scales
    from e^-16 to 1 all in one, 2e-6 and 3e-7. No probability is off by more than 3e-7; a quantile
    in a gap of all but no density is as far off as that makes it. 64 elements of 24 take .06 s of
    a CPU core.
    """

    parent: StudentMixture
    tau: float
    drawing: Resolution = COARSE

    def __post_init__(self) -> None:
        if not MIN_TEMPERATURE <= self.tau <= MAX_TEMPERATURE:
            raise BadInput(
                f"temperature must be from {MIN_TEMPERATURE} to {MAX_TEMPERATURE}, not {self.tau}"
            )
        if (self.parent.df < 2).any():
            raise BadInput(
                "a temperature needs components of 2 degrees of freedom or more, not "
                f"{float(self.parent.df.min()):.4g}"
            )

    def quantile(self, levels: Sequence[float]) -> Floats:
        """See `Predictive.quantile`."""
        wanted = np.array(checked_levels(levels))
        found = [
            table.quantile(np.broadcast_to(wanted, (len(table.mass), len(wanted))))
            for table in self._tables
        ]
        return _joined(found, len(wanted)).T.reshape(len(wanted), *self._batch)

    def mean(self) -> Floats:
        """See `Predictive.mean`."""
        means = [table.mean[:, None] for table in self._tables]
        return _joined(means, 1).reshape(self._batch)

    def sample(self, uniforms: ArrayLike) -> Floats:
        """One draw for each uniform number in [0, 1), by the inverse CDF.

        So equal numbers give comparable draws of different mixtures. They broadcast against the
        batch, and each element of it is integrated once, however many draws it serves.
        """
        level = np.maximum(np.asarray(uniforms, dtype=np.float64), _LEAST_UNIFORM)
        shape = np.broadcast_shapes(level.shape, self._batch)
        # Axes along which the batch has one element are put last: they are questions to the same.
        sizes = (1,) * (len(shape) - len(self._batch)) + self._batch
        order = sorted(range(len(shape)), key=lambda axis: sizes[axis] == 1)
        turned = np.broadcast_to(level, shape).transpose(order)
        count = math.prod(self._batch)
        flat = turned.reshape(count, math.prod(shape) // max(count, 1))
        found, start = [], 0
        for table in self._built(self.drawing):
            block = flat[start : start + len(table.mass)]
            start += len(block)
            step = max(1, _POINTS // len(block))
            parts = [block[:, first : first + step] for first in range(0, block.shape[1], step)]
            answers = [table.quantile(np.ascontiguousarray(part)) for part in parts]
            found.append(np.concatenate(answers, axis=1))
        draws = _joined(found, flat.shape[1]).reshape(turned.shape)
        return draws.transpose(np.argsort(order))

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.parent.df.shape[:-1]

    @property
    def _fine(self) -> Resolution:
        return FINE if self.parent.df.shape[-1] > _FEW else FINE._replace(nodes=_MANY_NODES)

    @property
    def _tables(self) -> Iterable[Table]:
        return self._kept if math.prod(self._batch) <= _KEPT else self._built(self._fine)

    @cached_property
    def _kept(self) -> list[Table]:
        return list(self._built(self._fine))

    def _built(self, resolution: Resolution) -> Iterator[Table]:
        """A table for each block of elements."""
        one = self.parent
        count, components = math.prod(self._batch), one.df.shape[-1]
        parts = [
            np.ascontiguousarray(part).reshape(count, components)
            for part in (one.df, one.location, one.scale, one.log_weight)
        ]
        step = max(1, _POINTS // resolution.points(components))
        for start in range(0, count, step):
            block = (part[start : start + step] for part in parts)
            yield Table(Powers(*block, tau=self.tau, drawing=resolution.drawing), resolution)


def _joined(blocks: Sequence[Floats], questions: int) -> Floats:
    """Answers of blocks, each (n, q), as one array; of no block, (0, q)."""
    return np.concatenate([*blocks, np.empty((0, questions))])
