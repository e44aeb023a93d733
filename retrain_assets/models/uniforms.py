"""Uniform numbers that belong to what they are for: the noise of every sampled forecast.

No draw depends on what else is forecast in the same call, all settings share the same noise
(common random numbers), and more paths or steps only add to the ones there were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput

_WORD = 2**64


def uniforms(seed: int, origin: int, *, steps: int, parts: int, paths: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) for one window, shape (step, part, path).

    parts: how many numbers a path takes at each step. Entry (i, j, p) depends on (seed, origin,
    i, j, p) alone: seed and origin are the key and step and part the counter of a Philox stream
    (Salmon et al. 2011), of which path p takes the p-th number. Raises BadInput for a seed
    outside [0, 2**64).
    """
    if not 0 <= seed < _WORD:
        raise BadInput(f"seed must be a whole number from 0 to 2**64 - 1, not {seed}")
    key = np.array([seed, origin % _WORD], dtype=np.uint64)
    table = np.empty((steps, parts, paths))
    for step in range(steps):
        for part in range(parts):
            counter = np.array([0, step, part, 0], dtype=np.uint64)
            stream = np.random.Generator(np.random.Philox(counter=counter, key=key))
            table[step, part] = stream.random(paths)
    return table
