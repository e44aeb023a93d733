"""NLinear behind the protocol of a family: trained, searched, forecasting, and strict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.evaluation.search import expand, search
from retrain_assets.models.forecaster import ModelFamily, family
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.training.adapters import load_adapted, prepare
from retrain_assets.training.policy import PlanOverrides, plan
from retrain_assets.training.splits import make_split
from retrain_assets_tests.tiny import random_walk, windows_of

N_BARS = 400


@pytest.fixture(scope="module")
def nlinear() -> ModelFamily:
    return family("nlinear")


@pytest.fixture(scope="module")
def folder(nlinear: ModelFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints folder with the example's small base."""
    made = tmp_path_factory.mktemp("checkpoints")
    bars = random_walk(500)
    facts = nlinear.pretrain(
        "nano",
        {"AAA": bars},
        until=bars["session"].iloc[-1],
        checkpoints=made,
        report=lambda part, progress: None,
    )
    assert facts["training_windows"] == 500 - 190 - 128 - 64 + 1
    return made


def trained(folder: Path, loss: str) -> tuple[AdapterRecord, ModelStore]:
    limits = family("nlinear").limits("nano", checkpoints=folder)
    made = plan(N_BARS, 10.0, "nlinear", limits, PlanOverrides(epochs=2, loss=loss))
    shape = {"context": made.context, "horizon": made.horizon, "holdout_days": 7}
    store = ModelStore(folder / "models")
    training = prepare(
        family_name="nlinear",
        base="nano",
        symbol="AAA",
        month="2023-08",
        bars=random_walk(N_BARS),
        plan=made,
        split=make_split(N_BARS, **shape, limits=limits),
        seed=0,
        store=store,
        checkpoints=folder,
        device="cpu",
    )
    return training.train(report=lambda progress: None).record, store


@pytest.mark.parametrize("loss", ["huber", "heteroscedastic", "mse"])
def test_an_adapter_is_trained_and_its_settings_are_searched(
    nlinear: ModelFamily, folder: Path, loss: str
) -> None:
    record, store = trained(folder, loss)
    assert record.metrics["validation_loss"] <= record.metrics["base_validation_loss"]
    assert record.metrics["trainable_parameters"] == record.plan["rank"] * (128 + 2 * 64)
    model = load_adapted(record, store=store, checkpoints=folder, device="cpu")
    found = search(
        random_walk(N_BARS),
        make_split(
            N_BARS,
            context=record.split["context"],
            horizon=record.split["horizon"],
            holdout_days=7,
            limits=model.limits,
        ),
        nlinear.forecaster(model, name="nlinear"),
        expand(nlinear.search_space),
        default=nlinear.default_settings,
        context=record.split["context"],
        symbol="AAA",
        seed=0,
    )
    assert set(found.chosen) == {"damping"}


def test_a_forecast_depends_on_its_window_and_setting_alone(
    nlinear: ModelFamily, folder: Path
) -> None:
    model = nlinear.load("nano", checkpoints=folder, device="cpu")
    forecaster = nlinear.forecaster(model, name="nlinear")
    windows = windows_of(random_walk(200), context=140, steps=9, count=3)
    settings = expand(nlinear.search_space)
    together = forecaster.forecast(windows, settings, seed=0)
    for i, window in enumerate(windows):
        for j, setting in enumerate(settings):
            alone = forecaster.forecast([window], [setting], seed=1)
            np.testing.assert_array_equal(alone.mean[0, 0], together.mean[j, i])
            np.testing.assert_array_equal(alone.quantiles[0, 0], together.quantiles[j, i])
    assert (np.diff(together.quantiles, axis=2) > 0).all()
    full, half = (forecaster.forecast(windows, [{"damping": d}], seed=0).mean for d in (1.0, 0.5))
    last = np.array([window.origin_close for window in windows])[:, None]
    np.testing.assert_allclose(half[0] - last, (full[0] - last) / 2)


@pytest.mark.parametrize(
    "settings", [{}, {"damping": 2}, {"damping": None}, {"damping": True}, {"temperature": 1}]
)
def test_a_setting_that_is_not_there_or_out_of_range_is_refused(
    nlinear: ModelFamily, settings: dict[str, float | None]
) -> None:
    with pytest.raises(BadInput, match="damping"):
        nlinear.check_settings(settings)


def test_a_checkpoint_of_another_shape_is_refused(
    nlinear: ModelFamily, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "nlinear-nano").mkdir()
    for file in (folder / "nlinear-nano").iterdir():
        text = file.read_bytes().replace(b'"steps": 64', b'"steps": 32')
        (tmp_path / "nlinear-nano" / file.name).write_bytes(text)
    with pytest.raises(CheckpointError, match="describes"):
        nlinear.load("nano", checkpoints=tmp_path, device="cpu")
    with pytest.raises(BadInput, match="choose one of nano"):
        nlinear.load("huge", checkpoints=tmp_path, device="cpu")
