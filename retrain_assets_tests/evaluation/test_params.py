"""Chosen settings on disk: whole, tied to their adapter, and equal to the bit when repeated."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.params import (
    ParamsRecord,
    checked,
    params_record,
    read_search,
    reproduce,
    same_terms,
    searches_on,
    tried_losses,
    write_search,
)
from retrain_assets.evaluation.racing import Racing
from retrain_assets.evaluation.search import SearchResult, expand, search
from retrain_assets.models.forecaster import ModelLimits, Settings, family
from retrain_assets.training.adapter_store import AdapterRecord
from retrain_assets.training.splits import make_split
from retrain_assets_tests import tiny
from retrain_assets_tests.evaluation.forecasters import (
    DEFAULT,
    GRID,
    GridForecaster,
    random_walk,
    split_of,
)

BARS, SPLIT = random_walk(450, 0), split_of(450)
SETTINGS = expand({**GRID, "top_k": (None,), "top_p": (0.9, None)})
ADAPTER = AdapterRecord(
    family="kronos",
    base="nano",
    symbol="NVDA",
    month="2023-08",
    folder="kronos/2023-08/NVDA/0123",
    digest="a" * 64,
    fingerprint="b" * 64,
    bars_hash="c" * 64,
    seed=0,
    plan={},
    split=SPLIT.to_json(),
    split_dates={},
    metrics={},
    versions={},
)


def searched(settings: list[dict[str, Any]] = SETTINGS) -> SearchResult:
    return search(
        BARS,
        SPLIT,
        GridForecaster(),
        settings,
        default=DEFAULT,
        context=SPLIT.context,
        symbol="NVDA",
        seed=3,
        racing=Racing(),
    )


def recorded(
    result: SearchResult, settings: list[dict[str, Any]] = SETTINGS, **changes: Any
) -> ParamsRecord:
    how: dict[str, Any] = {"seed": 3, "threads": 1, "device": "cpu", "options": {}} | changes
    return params_record(result, ADAPTER, SPLIT, BARS, settings=settings, **how)


@functools.cache
def the_result() -> SearchResult:
    return searched()


@functools.cache
def the_record() -> ParamsRecord:
    return recorded(the_result())


def test_a_record_survives_json_and_refuses_other_fields() -> None:
    value = json.loads(json.dumps(the_record().to_json(), allow_nan=False))
    assert ParamsRecord.from_json(value) == the_record()
    assert list(the_record().split_dates) == ["selection", "test"]
    with pytest.raises(BadInput, match="has sharpness"):
        ParamsRecord.from_json(value | {"sharpness": 1})
    del value["chosen"], value["seed"]
    with pytest.raises(BadInput, match="lacks seed, chosen: search again"):
        ParamsRecord.from_json(value)


def test_the_name_follows_what_determines_the_result_and_no_clock() -> None:
    again = recorded(searched())
    assert again.measured != the_record().measured
    assert again.digest == the_record().digest
    others = [
        recorded(the_result(), seed=4),
        recorded(the_result(), threads=2),
        recorded(the_result(), device="cuda"),
        recorded(the_result(), options={"compat": "upstream"}),
        recorded(the_result(), settings=SETTINGS[:-1]),
        recorded(dataclasses.replace(the_result(), default={"temperature": 9})),
        recorded(
            dataclasses.replace(the_result(), summary={**the_result().summary, "racing": None})
        ),
    ]
    assert len({record.folder for record in (the_record(), *others)}) == 1 + len(others)


def test_a_search_is_written_whole_and_read_back(tmp_path: Path) -> None:
    folder = write_search(tmp_path, the_record(), the_result())
    assert folder == tmp_path / the_record().folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "grid.parquet",
        "losses.parquet",
        "params.json",
    ]
    record, table, losses = read_search(folder)
    assert record == the_record()
    assert table.equals(the_result().table)
    assert losses.equals(the_result().losses)
    assert write_search(tmp_path, the_record(), the_result()) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    (folder / "losses.parquet").unlink()
    with pytest.raises(BadInput, match=r"losses.parquet does not exist"):
        read_search(folder)
    with pytest.raises(BadInput, match=r"params.json does not exist"):
        read_search(tmp_path / "nowhere")


def test_another_adapter_is_searched_on_the_very_same_terms(tmp_path: Path) -> None:
    folder = write_search(tmp_path, the_record(), the_result())
    settings, racing = same_terms(*read_search(folder)[:2])
    assert settings == SETTINGS
    assert [[type(v) for v in one.values()] for one in settings] == [
        [type(v) for v in one.values()] for one in SETTINGS
    ]
    assert racing == Racing()
    exhaustive = dataclasses.replace(the_record(), summary={**the_record().summary, "racing": None})
    assert same_terms(exhaustive, the_result().table)[1] is None


def test_everything_that_was_tried_is_gathered_on_the_same_origins(tmp_path: Path) -> None:
    other = searched(SETTINGS[:2])
    folders = [
        write_search(tmp_path, the_record(), the_result()),
        write_search(tmp_path, recorded(other, SETTINGS[:2]), other),
    ]
    close = pd.Series(50.0, index=the_result().losses.index)
    assert searches_on(tmp_path, close.index) == sorted(folders)
    assert searches_on(tmp_path, close.index[1:]) == []
    assert searches_on(tmp_path / "nowhere", close.index) == []
    tried = tried_losses(folders, relative_to=close)
    assert tried.shape == (len(close), len(SETTINGS) + 2)
    first = the_result().losses["0"].to_numpy() / 50
    np.testing.assert_array_equal(tried.iloc[:, 0], first)
    assert tried_losses([], relative_to=close).shape == (len(close), 0)
    with pytest.raises(BadInput, match="made on other origins than the comparison"):
        tried_losses(folders, relative_to=close.iloc[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "d" * 64}, "have adapter aaaaaaaaaaaa, and dddddddddddd is needed"),
        ({"fingerprint": "d" * 64}, "have fingerprint"),
        ({"bars_hash": "d" * 64}, "have bars_hash"),
        ({"base": "mini"}, "have base 'nano', and 'mini' is needed"),
        ({"symbol": "SPY"}, "have symbol 'NVDA'.*retrain validate --stocks SPY"),
        ({"month": "2023-09"}, "have month '2023-08'"),
    ],
)
def test_params_of_another_adapter_base_or_history_are_refused(
    change: dict[str, str], message: str
) -> None:
    assert checked(the_record(), ADAPTER) is the_record()
    with pytest.raises(BadInput, match=message):
        checked(the_record(), dataclasses.replace(ADAPTER, **change))


def test_params_of_another_way_to_filter_are_refused() -> None:
    with pytest.raises(BadInput, match=r"have options {}, and .*upstream.* is needed"):
        checked(the_record(), ADAPTER, options={"compat": "upstream"})


def test_the_score_repeats_to_the_bit() -> None:
    forecaster = GridForecaster()
    assert reproduce(the_record(), BARS, forecaster) == 0.0
    assert forecaster.calls == [(26, 1)], "the chosen setting alone, on all origins"


def nudged(by: float) -> GridForecaster:
    def spread(settings: Settings) -> float:
        return 0.01 * (1 + by)

    return GridForecaster(spread)


def test_another_score_is_refused_with_both_numbers() -> None:
    stored = the_record().summary["selection_mae"]
    with pytest.raises(RetrainError, match=f"erred by {stored!r} .* and err by"):
        reproduce(the_record(), BARS, nudged(1e-9))
    with pytest.raises(RetrainError, match="erred by"):
        reproduce(the_record(), BARS, nudged(0.5), device="cuda")
    for elsewhere in ({"device": "cuda"}, {"threads": 2}):
        assert 0 < reproduce(the_record(), BARS, nudged(1e-6), **elsewhere) < 1e-3  # type: ignore[arg-type]  # one of both


def test_kronos_itself_repeats_to_the_bit(tmp_path: Path) -> None:
    """A race, the whole grid and the setting alone give one error, on a small real network."""
    base = tiny.write_base(tmp_path)
    own = family("kronos")
    model = own.load(base, checkpoints=tmp_path, device="cpu")
    bars = tiny.random_walk(330)
    split = make_split(330, context=128, horizon=8, holdout_days=3, limits=ModelLimits(512))
    settings = expand(
        {"num_samples": (2, 4), "temperature": (0.5, 2.0), "top_k": (5, None), "top_p": (0.8,)}
    )
    results = [
        search(
            bars,
            split,
            own.forecaster(model, name="kronos"),
            settings,
            default=own.default_settings,
            context=split.context,
            symbol="NVDA",
            seed=0,
            racing=racing,
        )
        for racing in (None, Racing(level=0.4, following=10))
    ]
    whole, raced = (result.losses.to_numpy() for result in results)
    assert ((raced == whole) | (raced != raced)).all()
    assert (raced != raced).any(), "the race dropped something"
    record = params_record(
        results[1],
        ADAPTER,
        split,
        bars,
        settings=settings,
        seed=0,
        threads=1,
        device="cpu",
        options={},
    )
    assert reproduce(record, bars, own.forecaster(model, name="kronos")) == 0.0
