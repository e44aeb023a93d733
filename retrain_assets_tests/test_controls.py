"""Controls over the whole lower layer: real adapters find what is there, and only what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrain_assets.evaluation.comparison import Candidate, compare
from retrain_assets.evaluation.metrics import scores
from retrain_assets.evaluation.significance import Verdict, winner
from retrain_assets.models.forecaster import family
from retrain_assets.models.naive import NaiveForecaster
from retrain_assets.training import adapters
from retrain_assets.training.adapter_store import ModelStore
from retrain_assets.training.policy import PlanOverrides, plan
from retrain_assets.training.splits import make_split
from retrain_assets_tests.tiny import random_walk

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"
N_BARS = 400
WEEKDAY_MOVES = 0.06 * np.array([0.0, 1.0, -0.5, 0.6, -1.1])
NOISE = 0.004
bundled = pytest.mark.parametrize(
    ("name", "base"),
    [
        ("toto", "nano"),
        pytest.param("kronos", "nano", marks=pytest.mark.long),
        pytest.param("toto", "nano-1", marks=pytest.mark.long),
    ],
)


def weekday_series(seed: int = 0) -> pd.DataFrame:
    """Closes that depend on the weekday but for a little noise: nearly all is predictable."""
    draw = np.random.default_rng(seed)
    sessions = pd.bdate_range("2020-01-01", periods=N_BARS)
    moves = WEEKDAY_MOVES[sessions.weekday] + draw.normal(0, NOISE, N_BARS)
    close = 100 * np.exp(moves)
    opening = np.concatenate((close[:1], close[:-1]))
    return pd.DataFrame(
        {
            "session": sessions,
            "open": opening,
            "high": np.maximum(opening, close) * 1.002,
            "low": np.minimum(opening, close) * 0.998,
            "close": close,
            "volume": draw.uniform(1e6, 1.2e6, N_BARS),
        }
    )


def judged(
    bars: pd.DataFrame, store: Path, name: str, base: str, *, steps: int
) -> tuple[pd.DataFrame, Verdict]:
    """Train an adapter of a bundled base on a series and compare it with base and naive."""
    own = family(name)
    limits = own.limits(base, checkpoints=CHECKPOINTS)
    overrides = PlanOverrides(
        epochs=40, rank=16, learning_rate=2e-3, loss="huber", context_length=128
    )
    made = plan(N_BARS, 10.0, name, limits, overrides)
    split = make_split(
        N_BARS, context=made.context, horizon=made.horizon, holdout_days=7, limits=limits
    )
    training = adapters.prepare(
        family_name=name,
        base=base,
        symbol="CONTROL",
        month="2021-07",
        bars=bars,
        plan=made,
        split=split,
        seed=0,
        store=ModelStore(store),
        checkpoints=CHECKPOINTS,
        device="cpu",
        max_steps=steps,
    )
    record = training.train(report=lambda progress: None).record
    plain = own.load(base, checkpoints=CHECKPOINTS, device="cpu")
    adapted = adapters.load_adapted(
        record, store=ModelStore(store), checkpoints=CHECKPOINTS, device="cpu"
    )
    candidates = [
        Candidate("naive", NaiveForecaster(), {}, split.context),
        *(
            Candidate(
                f"{name}.{variant}",
                own.forecaster(model, name=name),
                own.default_settings,
                split.context,
            )
            for variant, model in (("zero_shot", plain), ("adapter", adapted))
        ),
    ]
    names = [candidate.name for candidate in candidates]
    forecasts = compare(bars, split, candidates, symbol="CONTROL", seed=0).forecasts
    return scores(forecasts, names), winner(forecasts, names)


@bundled
def test_positive_control_a_planted_pattern_is_learned(
    tmp_path: Path, name: str, base: str
) -> None:
    """The oracle's error is below a tenth of naive's; the adapter must beat naive clearly."""
    table, verdict = judged(weekday_series(), tmp_path, name, base, steps=150)
    held_out = table[(table["segment"] == "test") & (table["scope"] == "holdout")]
    by_name = held_out.set_index("candidate")
    oracle_pct = 100 * NOISE * np.sqrt(2 / np.pi)
    assert oracle_pct <= by_name.loc["naive", "mae_pct"] / 2
    assert by_name.loc[f"{name}.adapter", "skill"] > 0.15
    assert by_name.loc[f"{name}.adapter", "mae"] < by_name.loc[f"{name}.zero_shot", "mae"]
    assert verdict.winner == f"{name}.adapter"
    assert verdict.p_values[f"{name}.adapter"] < 0.01


@bundled
def test_negative_control_an_adapter_finds_nothing_in_a_random_walk(
    tmp_path: Path, name: str, base: str
) -> None:
    _, verdict = judged(random_walk(N_BARS, seed=11), tmp_path, name, base, steps=60)
    assert verdict.winner in ("tie", "naive"), verdict
