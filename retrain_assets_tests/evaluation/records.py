"""Records of comparisons for tests: whole ones of cheap forecasters, and ones of given losses."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from retrain_assets.evaluation.comparison import compare
from retrain_assets.evaluation.metrics import one_step_scale, origin_table, scores
from retrain_assets.evaluation.significance import Verdict
from retrain_assets.evaluation.stock_record import StockRecord, stock_record
from retrain_assets_tests.evaluation.forecasters import (
    candidate,
    drift,
    naive,
    random_walk,
    split_of,
)

BASELINES = ("drift", "auto_ets")
ONE = ("kronos.zero_shot", "kronos.adapter", "kronos.chosen")
TWO = (*ONE, "toto.zero_shot", "toto.adapter", "toto.chosen")
ALL = (*BASELINES, *TWO, "kronos.refined", "kronos.last_month", "toto.last_month")


def version(family: str, **settings: Any) -> dict[str, Any]:
    """A version with an adapter, as JSON."""
    adapter = {"digest": f"{family}-0123456789abcdef"}
    return {
        "family": family,
        "base": "nano",
        "fingerprint": "f" * 64,
        "month": "2023-08",
        "adapter": adapter,
        "settings": settings,
        "options": {},
        "context": 256,
        "seed": 0,
    }


@functools.cache
def measured(symbol: str, names: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forecasts and scores of drifts over different lengths under these names, beside naive."""
    bars, split = random_walk(500, sum(map(ord, symbol))), split_of(500)
    candidates = [naive(64), *(candidate(n, drift, 40 + 20 * i) for i, n in enumerate(names))]
    table = compare(bars, split, candidates, symbol=symbol, seed=0).forecasts
    scale = {symbol: one_step_scale(bars, split)}
    return table, scores(table, ["naive", *names], scale=scale)


def compared_record(
    symbol: str,
    names: Sequence[str] = ONE,
    *,
    winner: str = "tie",
    plan_horizon: int = 16,
    month: str = "2023-08",
) -> StockRecord:
    """A record of drifts over different lengths under these names, all of it measured.

    The candidate of a family is its chosen settings if there are any, else its adapter.
    """
    everyone = ["naive", *names]
    table, scored = measured(symbol, tuple(names))
    families = dict.fromkeys(name.split(".")[0] for name in names if "." in name)
    variants = {f: "chosen" if f"{f}.chosen" in names else "adapter" for f in families}
    return stock_record(
        scored,
        Verdict(winner, dict.fromkeys(names, 0.5), "because"),
        symbol=symbol,
        month=month,
        cut=f"{month}-31",
        provisional=False,
        bars=500,
        bars_hash="h",
        seed=0,
        versions={"torch": "2.13.0"},
        difficulty="medium",
        plan_horizon=plan_horizon,
        holdout_days=7,
        latency_s={name: 0.1 + 0.01 * i for i, name in enumerate(everyone)},
        latency_p95_s={name: 0.2 + 0.01 * i for i, name in enumerate(everyone)},
        losses={s: origin_table(table, everyone, segment=s) for s in ("selection", "test")},
        candidates={
            f: {"name": f"{f}.{v}", "version": version(f, temperature=0.7)}
            for f, v in variants.items()
        },
        zero_shot={f: version(f) for f in families},
        last_month={},
        tried={f: ["a", "b"] for f in families},
    )


def loss_record(
    symbol: str,
    month: str,
    losses: Mapping[str, Sequence[float]],
    *,
    close: float = 100.0,
    difficulty: str = "easy",
    provisional: bool = False,
    holdout_days: int = 7,
    p_values: Mapping[str, float] | None = None,
) -> StockRecord:
    """A record of these test losses in price units and nothing else.

    Its scores name the candidates, and nothing is in them.
    """
    origins = len(next(iter(losses.values())))
    table = {
        "cutoff": [f"{month}-{1 + 7 * i:02d}" for i in range(origins)],
        "origin_close": [close] * origins,
        **{name: list(values) for name, values in losses.items()},
    }
    return StockRecord(
        symbol=symbol,
        month=month,
        cut=f"{month}-28",
        provisional=provisional,
        bars=500,
        bars_hash="h",
        seed=0,
        versions={},
        difficulty=difficulty,
        plan_horizon=16,
        holdout_days=holdout_days,
        latency_s={},
        latency_p95_s={},
        winner="tie",
        p_values=dict(p_values or {}),
        reason="",
        scores=[{"candidate": name, "segment": "", "scope": ""} for name in losses],
        losses={"selection": table, "test": table},
        candidates={},
        zero_shot={},
        last_month={},
        tried={},
        notes=[],
    )
