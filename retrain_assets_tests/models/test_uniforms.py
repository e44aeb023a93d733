"""Uniform numbers: each belongs to its seed, origin, step, part and path alone."""

from __future__ import annotations

import numpy as np
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.uniforms import uniforms


def test_a_uniform_belongs_to_its_step_part_and_path() -> None:
    table = uniforms(7, 18_000, steps=6, parts=2, paths=50)
    assert table.shape == (6, 2, 50)
    assert np.array_equal(uniforms(7, 18_000, steps=3, parts=2, paths=50), table[:3])
    assert np.array_equal(uniforms(7, 18_000, steps=6, parts=2, paths=13), table[..., :13])
    for other in (
        uniforms(8, 18_000, steps=6, parts=2, paths=50),
        uniforms(7, 18_001, steps=6, parts=2, paths=50),
    ):
        assert not np.isin(other, table).any()
    assert len(np.unique(table)) == table.size


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    table = np.stack(
        [uniforms(s, o, steps=8, parts=2, paths=40) for s in range(8) for o in range(20)]
    )
    assert table.min() >= 0
    assert table.max() < 1
    counts = np.histogram(table, bins=20, range=(0, 1))[0]
    chi2 = ((counts - table.size / 20) ** 2 / (table.size / 20)).sum()
    assert chi2 < 43.8  # the 99.9 % point at 19 degrees of freedom
    flat = table.reshape(160, -1)
    correlation = np.corrcoef(flat, rowvar=False)[np.triu_indices(flat.shape[1], 1)]
    assert abs(correlation.mean()) < 0.001
    assert np.abs(correlation).max() < 6 / np.sqrt(160)


def test_an_origin_before_1970_has_numbers_too() -> None:
    assert not np.array_equal(
        uniforms(0, -86_400, steps=1, parts=2, paths=3),
        uniforms(0, 86_400, steps=1, parts=2, paths=3),
    )


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(BadInput, match="seed must be"):
        uniforms(seed, 0, steps=1, parts=2, paths=1)
