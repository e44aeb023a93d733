"""Toto's settings: what is accepted, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.settings import TotoSettings
from retrain_assets_tests.models.toto.cases import forecaster

GOOD = {"temperature": 0.7, "use_past_values": True}


def test_a_context_length_may_be_left_out() -> None:
    assert TotoSettings.parse(GOOD) == TotoSettings(0.7, True, None)
    assert TotoSettings.parse(GOOD | {"context_length": 64}) == TotoSettings(0.7, True, 64)
    assert TotoSettings.parse(FAMILY.default_settings) == TotoSettings(1.0, False, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, r"temperature is 0: give a number from 0\.1 to 1\.25"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": 1.3}, r"to 1\.25"),
        ({"temperature": None}, "temperature is None"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"use_past_values": 1}, "use_past_values is 1: give true or false"),
        ({"context_length": 0}, "context_length is 0"),
        ({"context_length": 64.0}, "context_length is 64.0"),
        ({"top_p": 0.9}, "no setting 'top_p': use temperature, use_past_values, context_length"),
    ],
)
def test_a_field_out_of_range_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        FAMILY.check_settings(GOOD | change)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(BadInput, match=f"needs the setting '{name}'"):
        TotoSettings.parse({k: v for k, v in GOOD.items() if k != name})


@pytest.mark.parametrize("length", [60, 4, 520])
def test_a_context_length_has_to_fit_the_base(length: int) -> None:
    with pytest.raises(
        BadInput, match=f"context_length is {length}: .*patch of 8 bars, at most 512"
    ):
        forecaster(2).traits(GOOD | {"context_length": length})


def test_temperatures_share_a_reading_and_companions_cost_five() -> None:
    own = forecaster(2)
    warm, cold = (own.traits({"temperature": t, "use_past_values": False}) for t in (1.0, 0.5))
    assert warm.shared == cold.shared
    assert warm.same != cold.same
    beside = own.traits({"temperature": 1.0, "use_past_values": True})
    assert beside.shared != warm.shared
    assert beside.cost == 5 * warm.cost
    short = own.traits({"temperature": 1.0, "use_past_values": False, "context_length": 256})
    assert short.cost * 2 == warm.cost
