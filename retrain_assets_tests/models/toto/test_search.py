"""The guide's grid of Toto, searched: exact, and honest about a setting that does nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrain_assets.evaluation.search import SearchResult, expand, search
from retrain_assets.models.forecaster import LoadedModel, ModelLimits, SearchSpace
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.forecaster import TotoForecaster
from retrain_assets.training.splits import make_split
from retrain_assets_tests.models.toto.cases import PATCH, model
from retrain_assets_tests.models.toto.toto1_cases import build, toto1_fields
from retrain_assets_tests.tiny import random_walk

N_BARS = 330


def symmetric() -> LoadedModel:
    """Toto 1 with one component: a tempered Student-T has the same mean and median."""
    network = build(toto1_fields(PATCH, 32, 4, 2, 4, 1)).requires_grad_(False)
    return LoadedModel(
        family="toto",
        base="symmetric",
        module=network,
        companion=None,
        limits=ModelLimits(512, PATCH),
        fingerprint="",
        device=torch.device("cpu"),
    )


def searched(loaded: LoadedModel, space: SearchSpace) -> SearchResult:
    split = make_split(N_BARS, context=128, horizon=16, holdout_days=7, limits=loaded.limits)
    return search(
        random_walk(N_BARS),
        split,
        TotoForecaster(loaded, name="toto"),
        expand(space),
        default=FAMILY.default_settings,
        context=split.context,
        symbol="AAA",
        seed=0,
    )


def test_a_temperature_without_effect_is_said_and_stays_at_its_default() -> None:
    found = searched(symmetric(), FAMILY.search_space)
    notes = " ".join(found.summary["notes"])
    assert "temperature has no effect" in notes
    assert "use_past_values has no effect" not in notes
    assert found.chosen["temperature"] == 1.0
    assert found.table["mae"].nunique() == 2


@pytest.mark.parametrize("generation", [1, 2])
def test_all_six_settings_are_distinct_and_cost_two_readings(generation: int) -> None:
    found = searched(model(generation), FAMILY.search_space)
    assert found.table["same_as"].isna().all()
    assert found.table["mae"].nunique() == 6
    assert (found.summary["settings"], found.summary["groups"]) == (6, 2)
    assert "has no effect" not in " ".join(found.summary["notes"])
    again = searched(model(generation), FAMILY.search_space)
    assert np.array_equal(again.losses, found.losses)


def test_context_length_is_a_third_setting() -> None:
    space = {"use_past_values": (False,), "temperature": (1.0,), "context_length": (64, 128, None)}
    found = searched(model(2), space)
    short, whole, off = found.table["mae"]
    assert short != whole
    assert whole == off  # the window has 128 bars
    assert "forecast them exactly as another does" in " ".join(found.summary["notes"])
