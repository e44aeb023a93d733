"""What the tried settings have in common: fields that move nothing, distance from the default."""

from __future__ import annotations

import numpy as np

from retrain_assets.evaluation.search import expand
from retrain_assets.evaluation.trials import Entrants, without_effect
from retrain_assets_tests.evaluation.forecasters import GridForecaster

SPACE = {"temperature": [0.5, 0.7, 1.0], "past": [True, False], "only": [3]}


def losses(*, temperature: float, past: float) -> np.ndarray:
    """Losses (origin, setting) to which each field adds so much at its largest value."""
    level = np.random.default_rng(0).gamma(4, 1, (8, 1))
    added = [
        temperature * (one["temperature"] == 1.0) + past * one["past"] for one in expand(SPACE)
    ]
    return level + level.mean() * np.array(added)


def test_a_field_that_moves_no_error_is_named() -> None:
    settings = expand(SPACE)
    assert without_effect(settings, losses(temperature=5e-4, past=0.01)) == ["temperature"]
    assert without_effect(settings, losses(temperature=0.01, past=5e-4)) == ["past"]
    assert without_effect(settings, losses(temperature=0.01, past=0.01)) == []


def test_one_origin_is_enough_for_an_effect() -> None:
    table = losses(temperature=0, past=0)
    table[3, 0] *= 1.05
    assert without_effect(expand(SPACE), table) == []


def test_what_was_not_measured_side_by_side_is_not_judged() -> None:
    table = losses(temperature=0, past=0)
    with_past = [i for i, one in enumerate(expand(SPACE)) if one["past"]]
    table[:, with_past] = np.nan
    assert without_effect(expand(SPACE), table) == ["temperature"]


def test_departures_count_the_fields_that_differ_from_the_default() -> None:
    default = {"num_samples": 10, "temperature": 0.6, "top_k": None, "top_p": 0.9}
    other = {"num_samples": 5, "temperature": 0.6, "top_k": 20, "top_p": None}
    entrants = Entrants.check(GridForecaster(), [other, default], default)
    assert entrants.departures.tolist() == [3, 0]
    alone = Entrants.check(GridForecaster(), [other], default)
    assert alone.departures.tolist() == [3]
