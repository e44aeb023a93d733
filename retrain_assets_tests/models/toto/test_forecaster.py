"""Toto's forecasts: exact, causal, the same in any company and in any currency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.search import expand
from retrain_assets.models import lora
from retrain_assets.models.forecaster import QUANTILE_LEVELS, Window
from retrain_assets.models.toto import FAMILY
from retrain_assets.models.toto.forecaster import TotoForecaster
from retrain_assets.models.toto.reading import Drawn, read
from retrain_assets.models.toto.series import UNIT
from retrain_assets.models.toto.tempered import TemperedMixture
from retrain_assets.models.uniforms import uniforms
from retrain_assets_tests.models.toto.cases import GENERATIONS, PATCH, forecaster, model, tiny
from retrain_assets_tests.models.toto.toto2_cases import walks
from retrain_assets_tests.tiny import random_walk, windows_of

GRID = expand(FAMILY.search_space)
DEFAULT = dict(FAMILY.default_settings)
PRICES = ["open", "high", "low", "close"]
both = pytest.mark.parametrize("generation", GENERATIONS)
FEW = {"paths": 40}
CHECKPOINTS = Path(__file__).parents[3] / "data" / "checkpoints"


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_walk(160)


@pytest.fixture(scope="module")
def windows(bars: pd.DataFrame) -> list[Window]:
    return windows_of(bars, context=64, steps=5, count=4)


@both
def test_the_guides_grid_is_six_forecasts(generation: int, windows: list[Window]) -> None:
    assert len(GRID) == 6
    found = forecaster(generation).forecast(windows, GRID, seed=0)
    assert found.mean.shape == found.median.shape == (6, 4, 5)
    assert found.quantiles.shape == (6, 4, len(QUANTILE_LEVELS), 5)
    assert (np.diff(found.quantiles, axis=2) > 0).all()
    assert np.array_equal(found.quantiles[:, :, QUANTILE_LEVELS.index(0.5)], found.median)
    assert list(found.origins) == [window.origin for window in windows]
    # Both settings reach the forecast, each at every value of the other.
    origin = np.array([window.origin_close for window in windows])[:, None]
    for i, one in enumerate(GRID):
        for j, other in enumerate(GRID[:i]):
            apart = np.abs(found.mean[i] - found.mean[j]) / origin
            assert apart.max() > 1e-4, (one, other)


@both
@pytest.mark.parametrize("steps", [5, PATCH, 19])
def test_a_forecast_is_the_same_to_the_bit_in_any_company(
    bars: pd.DataFrame, generation: int, steps: int
) -> None:
    windows = windows_of(bars, context=64, steps=steps, count=3)
    together = forecaster(generation, **FEW).forecast(windows, GRID, seed=3)
    for i, j in ((0, 2), (5, 1)):
        alone = forecaster(generation, **FEW).forecast([windows[j]], [GRID[i]], seed=3)
        assert np.array_equal(alone.mean[0, 0], together.mean[i, j])
        assert np.array_equal(alone.quantiles[0, 0], together.quantiles[i, j])


@pytest.mark.parametrize("base", ["nano", "nano-1"])
@pytest.mark.parametrize("steps", [7, 64, pytest.param(80, marks=pytest.mark.long)])
def test_batches_of_other_sizes_agree(base: str, steps: int) -> None:
    """With trained weights: the random ones above make more of a rounding than networks do."""
    windows = windows_of(random_walk(300), context=192, steps=steps, count=5)
    loaded = FAMILY.load(base, checkpoints=CHECKPOINTS, device="cpu")
    single = TotoForecaster(loaded, name="toto", **FEW).forecast(windows, GRID, seed=0)
    for size in (2, 5):
        several = TotoForecaster(loaded, name="toto", windows_at_once=size, **FEW)
        batched = several.forecast(windows, GRID, seed=0)
        assert batched.computation["windows_at_once"] == size
        for one, mean, quantiles, means, all_quantiles in zip(
            GRID, batched.mean, batched.quantiles, single.mean, single.quantiles, strict=True
        ):
            # A low temperature makes more of a difference between two close quantiles.
            allowed = 1e-6 if one["temperature"] == 1 else 1e-5
            np.testing.assert_allclose(mean, means, rtol=allowed)
            np.testing.assert_allclose(quantiles, all_quantiles, rtol=allowed)


@both
@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_a_price_in_another_unit_gives_the_same_relative_forecast(
    bars: pd.DataFrame, generation: int, factor: float
) -> None:
    other = bars.copy()
    other[PRICES] *= factor
    found = [
        forecaster(generation, **FEW).forecast(
            windows_of(frame, context=64, steps=19, count=2), GRID, seed=0
        )
        for frame in (bars, other)
    ]
    np.testing.assert_allclose(found[1].mean, found[0].mean * factor, rtol=1e-6)
    np.testing.assert_allclose(found[1].quantiles, found[0].quantiles * factor, rtol=1e-6)


@both
def test_a_length_that_is_no_whole_number_of_patches_is_cut_at_its_old_end(
    bars: pd.DataFrame, generation: int
) -> None:
    window = windows_of(bars, context=61, steps=5, count=1)[0]
    cut = Window(window.bars.iloc[-56:].reset_index(drop=True), window.future_sessions)
    own = forecaster(generation)
    long, short = (own.forecast([one], GRID, seed=0) for one in (window, cut))
    assert np.array_equal(long.mean, short.mean)


@both
def test_context_length_reads_less(generation: int, windows: list[Window]) -> None:
    own = forecaster(generation)
    short = [Window(w.bars.iloc[-32:].reset_index(drop=True), w.future_sessions) for w in windows]
    limited = own.forecast(windows, [DEFAULT | {"context_length": 32}], seed=0)
    assert np.array_equal(limited.mean, own.forecast(short, [DEFAULT], seed=0).mean)
    everything = own.forecast(windows, [DEFAULT, DEFAULT | {"context_length": 128}], seed=0)
    assert np.array_equal(everything.mean[0], everything.mean[1])
    assert not np.array_equal(everything.mean[0], limited.mean[0])


@both
def test_without_past_values_companions_do_not_matter(bars: pd.DataFrame, generation: int) -> None:
    other = bars.copy()
    other[["open", "high", "low"]] *= 1.5
    other["volume"] = 0.0
    settings = [{"temperature": 1.0, "use_past_values": past} for past in (False, True)]
    found = [
        forecaster(generation).forecast(
            windows_of(frame, context=64, steps=5, count=1), settings, seed=0
        )
        for frame in (bars, other)
    ]
    assert np.array_equal(found[0].mean[0], found[1].mean[0])
    assert not np.allclose(found[0].mean[1], found[1].mean[1], rtol=1e-4)


@both
def test_closed_form_needs_no_seed(generation: int, windows: list[Window]) -> None:
    first, second = (forecaster(generation).forecast(windows, GRID, seed=s) for s in (0, 1))
    assert np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.quantiles, second.quantiles)
    assert first.computation["paths"] == 0


def test_beyond_a_patch_toto_1_draws_and_toto_2_does_not(bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=64, steps=2 * PATCH + 3, count=1)
    near = windows_of(bars, context=64, steps=PATCH, count=1)
    for generation, draws in ((1, True), (2, False)):
        own = forecaster(generation, paths=50)
        first, second = (own.forecast(windows, [DEFAULT], seed=s) for s in (0, 1))
        assert np.array_equal(first.mean, second.mean) == (not draws)
        assert first.computation["paths"] == (50 if draws else 0)
        if draws:
            # The first patch stays exact, whatever is drawn after it.
            exact = own.forecast(near, [DEFAULT], seed=0)
            assert np.array_equal(first.mean[..., :PATCH], exact.mean)
            assert np.array_equal(first.quantiles[..., :PATCH], exact.quantiles)


def test_drawn_paths_go_on_from_what_they_drew(bars: pd.DataFrame) -> None:
    """Each path by hand: its first patch appended to its window, read anew without a cache."""
    paths, steps = 6, 2 * PATCH
    loaded = model(1)
    window = windows_of(bars, context=32, steps=steps, count=1)[0]
    own = TotoForecaster(loaded, name="toto", paths=paths)
    series = own._series([window], (False, 32))
    values = torch.from_numpy(series.values)
    reading = read(
        loaded.module, values, steps=steps, origins=[window.origin.value], paths=paths, seed=5
    )  # type: ignore[arg-type]
    drawn = reading._paths(1.0)  # type: ignore[attr-defined]
    mixtures = TemperedMixture(reading.first, 1.0)  # type: ignore[attr-defined]
    first = np.stack(
        [mixtures.sample(reading._uniforms(0, PATCH)[:, :, path]) for path in range(paths)]  # type: ignore[attr-defined]
    )
    for path in range(paths):
        extended = torch.cat((values, torch.from_numpy(first[path]).float()), dim=-1)
        alone = read(loaded.module, extended, steps=PATCH, origins=[0], paths=1, seed=0)  # type: ignore[arg-type]
        noise = reading._uniforms(PATCH, PATCH)[:, 0, path]  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            TemperedMixture(alone.closes, 1.0).sample(noise),
            drawn[:, path],
            rtol=1e-4,
            atol=1e-3 * UNIT,
        )  # type: ignore[attr-defined]


def test_every_series_draws_with_numbers_of_its_own_that_stay() -> None:
    """With others a seed would give other forecasts than it gave."""
    steps = 2 * PATCH + 3
    values = UNIT * walks(1, 5, 4 * PATCH)
    reading = read(tiny(1), values, steps=steps, origins=[7], paths=6, seed=5)
    assert isinstance(reading, Drawn)
    found = [reading._uniforms(start, PATCH)[0] for start in range(0, steps, PATCH)]
    expected = uniforms(5, 7, steps=steps, parts=10, paths=6)[:, [1, 3, 5, 7, 9]]
    assert np.array_equal(np.concatenate(found, axis=-1)[..., :steps], expected.transpose(1, 2, 0))


def test_a_low_temperature_narrows_what_is_drawn(bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=64, steps=2 * PATCH, count=2)
    settings = [DEFAULT | {"temperature": tau} for tau in (0.3, 0.7, 1.0, 1.25)]
    found = forecaster(1, paths=50).forecast(windows, settings, seed=0)
    widths = (found.quantiles[:, :, -1] - found.quantiles[:, :, 0])[..., PATCH:].mean((1, 2))
    assert (widths[1:] > 1.1 * widths[:-1]).all()


def test_settings_draw_with_the_same_numbers(bars: pd.DataFrame) -> None:
    """Common random numbers: settings that are close differ by less than seeds do."""
    windows = windows_of(bars, context=64, steps=3 * PATCH, count=1)
    own = forecaster(1, paths=30)
    close = own.forecast(windows, [DEFAULT, DEFAULT | {"temperature": 0.999}], seed=0)
    other = own.forecast(windows, [DEFAULT], seed=1)
    by_setting = np.abs(close.mean[0] - close.mean[1])[..., PATCH:].mean()
    by_seed = np.abs(close.mean[0] - other.mean[0])[..., PATCH:].mean()
    assert by_setting < by_seed / 3


@both
def test_an_adapter_moves_the_forecast(generation: int, windows: list[Window]) -> None:
    plain = forecaster(generation).forecast(windows, [DEFAULT], seed=0)
    loaded = model(generation)
    settings = lora.LoraSettings(4, 8, 0.0, FAMILY.lora_targets(loaded))
    loaded.module = lora.attach(loaded.module, settings, seed=1)
    own = TotoForecaster(loaded, name="toto")
    assert np.array_equal(own.forecast(windows, [DEFAULT], seed=0).mean, plain.mean)
    weights = lora.adapter_weights(loaded.module)
    draw = torch.Generator().manual_seed(0)
    moved = {n: w + 0.3 * torch.randn(w.shape, generator=draw) for n, w in weights.items()}
    lora.set_adapter_weights(loaded.module, moved)
    assert not np.allclose(own.forecast(windows, [DEFAULT], seed=0).mean, plain.mean, rtol=1e-4)


@both
def test_a_series_that_never_moves_is_forecast_to_stay(generation: int) -> None:
    still = random_walk(80)
    still[PRICES] = 12.5
    still["volume"] = 0.0
    windows = windows_of(still, context=64, steps=PATCH, count=1)
    found = forecaster(generation).forecast(windows, GRID, seed=0)
    np.testing.assert_allclose(found.mean, 12.5, rtol=1e-3)
    assert np.isfinite(found.quantiles).all()


@both
def test_a_bar_that_is_no_number_is_named(bars: pd.DataFrame, generation: int) -> None:
    broken = bars.copy()
    broken.loc[10, "high"] = np.nan
    windows = windows_of(broken, context=64, steps=5, count=1)
    session = f"{pd.Timestamp(bars['session'].iloc[10]):%Y-%m-%d}"
    with pytest.raises(BadInput, match=rf"bar of {session} \(row 10\): high is nan"):
        forecaster(generation).forecast(windows, [DEFAULT], seed=0)


@both
def test_a_context_shorter_than_a_patch_is_refused(bars: pd.DataFrame, generation: int) -> None:
    windows = windows_of(bars, context=PATCH - 1, steps=5, count=1)
    with pytest.raises(BadInput, match=r"7 bars is shorter than one patch .*give at least 8"):
        forecaster(generation).forecast(windows, [DEFAULT], seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"paths": 0}, "paths is 0"),
        ({"windows_at_once": 2.5}, "windows_at_once is 2.5"),
        ({"compat": "upstream"}, "Toto has no option compat: use paths, windows_at_once"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        FAMILY.forecaster(model(1), name="toto", options=options)
