import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import QUANTILE_LEVELS, LoadedModel, Window
from retrain_assets.models.inputs import evaluating
from retrain_assets.models.kronos import FAMILY
from retrain_assets.models.kronos.family import LORA_TARGETS
from retrain_assets.models.kronos.forecaster import KronosForecaster, network_of
from retrain_assets_tests.models.kronos.cases import (
    NETWORKS,
    TOKENIZERS,
    build_model,
    random_bars,
    upstream,
)
from retrain_assets_tests.tiny import windows_of

CHECKPOINTS = Path(__file__).parents[3] / "data" / "checkpoints"
DEFAULT = dict(FAMILY.default_settings)
GREEDY = DEFAULT | {"top_k": 1}


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return random_bars(80)


@pytest.fixture
def model() -> LoadedModel:
    return build_model()


def forecaster(model: LoadedModel, **options: Any) -> KronosForecaster:
    return KronosForecaster(model, name="kronos", **options)


def adapted(model: LoadedModel, *, size: float) -> LoadedModel:
    """The model with a random LoRA adapter on every target."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(LORA_TARGETS))
    module = get_peft_model(model.module, config)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=size)
    model.module = module.eval()
    return model


def test_a_greedy_forecast_is_upstreams_predictors(bars: pd.DataFrame) -> None:
    model = build_model(NETWORKS["mini"], TOKENIZERS["2k"])
    window = windows_of(bars, context=64, steps=6, count=1)[0]
    ours = forecaster(model).forecast([window], [GREEDY], seed=0).mean[0, 0]
    package = upstream()
    network = package.Kronos(**NETWORKS["mini"]).eval()
    network.load_state_dict(model.module.state_dict())
    tokenizer = package.KronosTokenizer(**TOKENIZERS["2k"]).eval()
    assert model.companion is not None
    tokenizer.load_state_dict(model.companion.state_dict())
    theirs = package.KronosPredictor(network, tokenizer, device="cpu", max_context=2048).predict(
        window.bars.drop(columns="session"),
        x_timestamp=window.bars["session"],
        y_timestamp=pd.Series(window.future_sessions),
        pred_len=6,
        top_k=1,
        verbose=False,
    )["close"]
    # Upstream computes in single precision, prices included.
    scale = window.bars["close"].std()
    assert np.abs(ours - theirs.to_numpy()).max() <= 1e-5 * scale


def test_axes_and_aggregates(model: LoadedModel, bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=3)
    settings = [DEFAULT, DEFAULT | {"num_samples": 4, "temperature": 1.0}]
    kronos = forecaster(model)
    got = kronos.forecast(windows, settings, seed=3)
    paths = kronos.paths(windows, settings, seed=3)
    assert got.mean.shape == got.median.shape == (2, 3, 5)
    assert got.quantiles.shape == (2, 3, len(QUANTILE_LEVELS), 5)
    assert got.levels == QUANTILE_LEVELS
    assert list(got.origins) == [window.origin for window in windows]
    assert got.seconds > 0
    for setting, samples in ((0, 10), (1, 4)):
        of_setting = paths.of(setting)
        assert of_setting.shape == (3, samples, 5)
        np.testing.assert_allclose(got.mean[setting], of_setting.mean(axis=1))
        np.testing.assert_array_equal(got.median[setting], np.median(of_setting, axis=1))
        for place, level in enumerate(QUANTILE_LEVELS):
            expected = np.quantile(of_setting[1, :, 2], level)
            assert got.quantiles[setting, 1, place, 2] == pytest.approx(expected, rel=1e-12)
    assert (np.diff(got.quantiles, axis=2) >= 0).all()


def test_prices_come_back_in_the_series_own_scale(model: LoadedModel, bars: pd.DataFrame) -> None:
    columns = ["open", "high", "low", "close"]
    window = windows_of(bars, context=40, steps=5, count=1)[0]
    scaled = window.bars.copy()
    scaled[columns] = scaled[columns] * 1000 + 5000
    kronos = forecaster(model)
    usual = kronos.forecast([window], [GREEDY], seed=0).mean
    large = kronos.forecast([Window(scaled, window.future_sessions)], [GREEDY], seed=0).mean
    np.testing.assert_allclose(large, usual * 1000 + 5000, rtol=1e-5)


def test_a_forecast_depends_on_nothing_else_in_the_call(
    model: LoadedModel, bars: pd.DataFrame
) -> None:
    windows = windows_of(bars, context=40, steps=5, count=4)
    settings = [DEFAULT, DEFAULT | {"num_samples": 50}, DEFAULT | {"top_k": 5}]
    kronos = forecaster(model)
    together = kronos.forecast(windows, settings, seed=3)
    for w, window in enumerate(windows):
        for s, setting in enumerate(settings):
            alone = kronos.forecast([window], [setting], seed=3)
            assert np.array_equal(alone.mean[0, 0], together.mean[s, w])
            assert np.array_equal(alone.quantiles[0, 0], together.quantiles[s, w])


def test_only_the_context_and_the_calendar_are_read(model: LoadedModel, bars: pd.DataFrame) -> None:
    window = windows_of(bars, context=40, steps=5, count=1)[0]
    kronos = forecaster(model)
    usual = kronos.forecast([window], [DEFAULT], seed=0).mean
    later = Window(window.bars, window.future_sessions + pd.Timedelta(days=40))
    assert not np.array_equal(usual, kronos.forecast([later], [DEFAULT], seed=0).mean)


def test_every_setting_changes_the_forecast(model: LoadedModel, bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=2)
    usual = DEFAULT | {"top_k": 8, "top_p": 0.8, "temperature": 1.0}
    changes = [{}, {"temperature": 0.5}, {"top_k": None}, {"top_p": None}, {"num_samples": 5}]
    means = forecaster(model).forecast(windows, [usual | c for c in changes], seed=0).mean
    for changed in means[1:]:
        assert not np.array_equal(means[0], changed)
    theirs = forecaster(model, compat="upstream").forecast(
        windows, [usual, usual | {"top_p": None}], seed=0
    )
    assert np.array_equal(theirs.mean[0], theirs.mean[1])


def test_an_adapter_moves_the_forecast_as_its_merged_weights_do(bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=2)
    base = forecaster(build_model()).forecast(windows, [DEFAULT], seed=0).mean
    carrying = adapted(build_model(), size=0.3)
    with_adapter = forecaster(carrying).forecast(windows, [DEFAULT], seed=0).mean
    assert np.abs(with_adapter - base).max() > 0.1
    merged = build_model()
    merged.module = adapted(build_model(), size=0.3).module.merge_and_unload()
    np.testing.assert_allclose(
        forecaster(merged).forecast(windows, [DEFAULT], seed=0).mean, with_adapter, rtol=1e-5
    )


def test_an_adapter_that_changes_nothing_changes_nothing(bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=1)
    base = forecaster(build_model()).forecast(windows, [DEFAULT], seed=0).mean
    same = forecaster(adapted(build_model(), size=0.0)).forecast(windows, [DEFAULT], seed=0).mean
    assert np.array_equal(base, same)


def test_dropout_never_reaches_a_forecast(model: LoadedModel, bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=1)
    usual = forecaster(model).forecast(windows, [DEFAULT], seed=0).mean
    model.module.train()
    assert np.array_equal(forecaster(model).forecast(windows, [DEFAULT], seed=0).mean, usual)
    assert model.module.training


def test_evaluation_mode_ends_with_an_error_too(model: LoadedModel) -> None:
    model.module.train()
    mode = evaluating(model.module)
    mode.__enter__()
    assert not model.module.training
    assert mode.__exit__(KeyError, KeyError(), None) is not True
    assert model.module.training


def test_the_random_state_of_the_process_is_left_alone(
    model: LoadedModel, bars: pd.DataFrame
) -> None:
    before = torch.random.get_rng_state()
    forecaster(model).forecast(windows_of(bars, context=40, steps=5, count=1), [DEFAULT], seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_context_that_does_not_fit_is_refused_with_the_rule(bars: pd.DataFrame) -> None:
    model = build_model(max_context=48)
    windows = windows_of(bars, context=44, steps=5, count=1)
    with pytest.raises(BadInput, match=r"44 \+ 5 steps exceed the 48 .*max_context - steps = 43"):
        forecaster(model).forecast(windows, [DEFAULT], seed=0)
    fitting = windows_of(bars, context=43, steps=5, count=1)
    assert forecaster(model).forecast(fitting, [DEFAULT], seed=0).mean.shape == (1, 1, 5)


def test_windows_of_different_shapes_are_refused(model: LoadedModel, bars: pd.DataFrame) -> None:
    mixed = [windows_of(bars, context=c, steps=5, count=1)[0] for c in (40, 41)]
    with pytest.raises(BadInput, match="same context and steps"):
        forecaster(model).forecast(mixed, [DEFAULT], seed=0)


def test_nothing_to_forecast_is_refused(model: LoadedModel, bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=1)
    with pytest.raises(BadInput, match="no windows"):
        forecaster(model).forecast([], [DEFAULT], seed=0)
    with pytest.raises(BadInput, match="no settings"):
        forecaster(model).forecast(windows, [], seed=0)
    with pytest.raises(BadInput, match="needs context and steps"):
        forecaster(model).forecast(
            windows_of(bars, context=40, steps=0, count=1), [DEFAULT], seed=0
        )


def test_a_bad_bar_or_setting_is_refused_by_name(model: LoadedModel, bars: pd.DataFrame) -> None:
    window = windows_of(bars, context=40, steps=5, count=1)[0]
    broken = window.bars.copy()
    broken.loc[7, "low"] = np.nan
    with pytest.raises(BadInput, match="low is nan"):
        forecaster(model).forecast([Window(broken, window.future_sessions)], [DEFAULT], seed=0)
    with pytest.raises(BadInput, match="'top_p' must be"):
        forecaster(model).forecast([window], [DEFAULT | {"top_p": 2}], seed=0)


def test_a_foreign_module_is_refused() -> None:
    with pytest.raises(BadInput, match="not Linear"):
        network_of(torch.nn.Linear(1, 1))


def test_no_two_of_the_guides_settings_forecast_the_same() -> None:
    """192 settings, which 48 computations of 50 paths serve; random weights make no token sure."""
    names = list(FAMILY.search_space)
    grid = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*FAMILY.search_space.values())
    ]
    kronos = forecaster(build_model(NETWORKS["mini"], TOKENIZERS["2k"]))
    traits = [kronos.traits(setting) for setting in grid]
    assert len({one.same for one in traits}) == len(grid) == 192
    assert len({one.shared for one in traits}) == 48
    window = windows_of(random_bars(50), context=40, steps=3, count=1)
    got = kronos.forecast(window, grid, seed=0)
    assert got.computation["bars_drawn"] == 48 * 50 * 3
    assert len(np.unique(got.mean[:, 0], axis=0)) == 192


def test_paths_that_agree_are_computed_once() -> None:
    """A trained base is sure enough of what comes next for many to agree."""
    nano = FAMILY.load("nano", checkpoints=CHECKPOINTS, device="cpu")
    settings = [DEFAULT | {"num_samples": 50, "top_p": p} for p in (0.8, 0.9, 0.95)]
    window = windows_of(random_bars(140), context=128, steps=7, count=1)
    how = FAMILY.forecaster(nano, name="kronos").forecast(window, settings, seed=0).computation
    assert how["bars_drawn"] == 3 * 50 * 7
    assert how["bars_computed"] < 0.7 * how["bars_drawn"]


def test_bf16_products_move_a_forecast_a_little(bars: pd.DataFrame) -> None:
    windows = windows_of(bars, context=40, steps=5, count=4)
    settings = [DEFAULT | {"num_samples": 200}]
    exact = forecaster(build_model()).forecast(windows, settings, seed=0)
    rough = forecaster(build_model(), precision="bf16").forecast(windows, settings, seed=0)
    assert rough.computation["precision"] == "bf16"
    spread = exact.quantiles[0, :, -1] - exact.quantiles[0, :, 0]
    moved = np.abs(rough.mean[0] - exact.mean[0])
    assert 0 < moved.max() < 0.1 * spread.max()


def test_weights_changed_between_forecasts_are_seen(bars: pd.DataFrame) -> None:
    windows, model = windows_of(bars, context=40, steps=5, count=1), build_model()
    kronos = forecaster(model)
    before = kronos.forecast(windows, [DEFAULT], seed=0).mean
    with torch.no_grad():
        network_of(model.module).head.proj_s1.weight.mul_(0.5)
    after = kronos.forecast(windows, [DEFAULT], seed=0).mean
    assert not np.array_equal(before, after)
    assert np.array_equal(forecaster(model).forecast(windows, [DEFAULT], seed=0).mean, after)


@pytest.mark.parametrize("options", [{"compat": "both"}, {"precision": "fp8"}, {"row_budget": 0}])
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(BadInput, match=name):
        forecaster(build_model(), **options)
