import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput
from retrain_assets.models.kronos.preprocess import features, time_features
from retrain_assets_tests.models.kronos.cases import random_bars, upstream


def test_amount_is_volume_at_the_mean_price() -> None:
    bars = pd.DataFrame(
        {
            "session": pd.to_datetime(["2020-01-02"]),
            "open": [10.0],
            "high": [14.0],
            "low": [8.0],
            "close": [12.0],
            "volume": [100.0],
        }
    )
    assert features(bars).tolist() == [[10.0, 14.0, 8.0, 12.0, 100.0, 1100.0]]


@pytest.mark.parametrize("column", ["open", "close", "volume"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_named(column: str, value: float) -> None:
    bars = random_bars(5)
    bars.loc[3, column] = value
    with pytest.raises(BadInput, match=rf"2020-01-06 \(row 3\): {column} is"):
        features(bars)


def test_calendar_fields_are_upstreams() -> None:
    labels = pd.DatetimeIndex(["2021-03-01 09:35", "2021-03-07 00:00", "2020-02-29 23:59"])
    assert time_features(labels).tolist() == [
        [35, 9, 0, 1, 3],
        [0, 0, 6, 7, 3],
        [59, 23, 5, 29, 2],
    ]
    theirs = upstream().calc_time_stamps(pd.Series(labels))
    assert (time_features(labels) == theirs.to_numpy()).all()
