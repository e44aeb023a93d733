"""What the search's configuration comes down to, and which of its numbers are tracked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from retrain_assets.defs.params import ParamsConfig, racing_rules
from retrain_assets.defs.tracking import flat_numbers
from retrain_assets.evaluation.racing import Racing


def test_racing_is_the_rule_and_its_fields_can_be_set() -> None:
    assert racing_rules(ParamsConfig()) == Racing()
    assert racing_rules(ParamsConfig(exhaustive=True)) is None
    given = ParamsConfig(racing_level=0.2, first_round=5, next_rounds=3)
    assert racing_rules(given) == Racing(level=0.2, first=5, following=3)


@pytest.mark.parametrize(
    "field",
    [{"racing_level": 0.5}, {"first_round": 2}, {"next_rounds": 0}, {"subset": 0}, {"seed": -1}],
)
def test_a_field_out_of_range_is_refused(field: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        ParamsConfig(**field)


def test_numbers_are_tracked_under_dotted_names() -> None:
    values = {"test": {"naive": {"mae": 1.5, "origins": 3}}, "tied": 2, "racing": None, "on": True}
    found = flat_numbers(values | {"notes": ["a note"]})
    assert found == {"test.naive.mae": 1.5, "test.naive.origins": 3.0, "tied": 2.0}
