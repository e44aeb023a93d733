"""Records of a stock and month with given errors, as the regression analysis reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from retrain_assets.evaluation.versions import Version

CLOSE = 50.0
"""Close at every origin: a loss of 1 is 2 % of it."""
MONTH = "2023-08"
ORIGINS = 26


def losses(columns: Mapping[str, float], count: int, *, sure: bool) -> dict[str, Any]:
    """A table of losses, each column's mean as given and naive's 2.

    sure: the columns differ by the same at nearly every origin; otherwise by noise as well.
    """
    table: dict[str, Any] = {
        "cutoff": [f"{day:%Y-%m-%d}" for day in pd.bdate_range("2023-01-02", periods=count)],
        "origin_close": [CLOSE] * count,
    }
    shared = centred(np.random.default_rng(99), count)
    for seed, (name, mean) in enumerate(({"naive": 2.0, **columns}).items()):
        own = (0.001 if sure else 1.0) * centred(np.random.default_rng(seed), count)
        table[name] = (mean + 0.3 * (shared + own)).tolist()
    return table


def centred(rng: np.random.Generator, count: int) -> np.ndarray:
    values = rng.uniform(-1, 1, count)
    return np.asarray(values - values.mean())


def version(family: str, **changes: Any) -> dict[str, Any]:
    """A version of the base `small`, without adapter, unless the changes say otherwise."""
    return Version(family, "small", "1" * 64, settings={"temperature": 1.0}).to_json() | changes


def adapter(plan: dict[str, Any], *, best_epoch: int = 5, epochs: int = 10) -> dict[str, Any]:
    """The parts of an adapter's record that are read."""
    return {"plan": plan, "metrics": {"best_epoch": best_epoch, "epochs": epochs}}


def comparison(
    selection: dict[str, float],
    test: dict[str, float] | None = None,
    *,
    sure: bool = True,
    origins: int = ORIGINS,
    bars: int = 2685,
    settings: dict[str, Any] | None = None,
    trained: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A comparison's record; candidates are the columns named chosen, else those named adapter.

    selection, test: mean loss by column. settings, trained: of the candidates.
    """
    variants = {name.split(".")[1]: name for name in selection}
    families = sorted({name.split(".")[0] for name in selection})
    kind = "chosen" if "chosen" in variants else "adapter"
    candidate = {"adapter": trained, "settings": settings or {"temperature": 1.0}}
    return {
        "month": MONTH,
        "bars": bars,
        "holdout_days": 7,
        "plan_horizon": 64,
        "candidates": {
            f: {"name": f"{f}.{kind}", "version": version(f, **candidate)} for f in families
        },
        "zero_shot": {f: version(f) for f in families},
        "last_month": {f: version(f) for f in families if f"{f}.last_month" in selection},
        "losses": {
            "selection": losses(selection, origins, sure=sure),
            "test": losses(selection if test is None else test, 3, sure=True),
        },
    }


def champion(
    selection: dict[str, float],
    *,
    sure: bool = True,
    promote: bool = False,
    incumbent: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A champion's record with the columns `<family>.candidate` and `<family>.incumbent`."""
    families = sorted({name.split(".")[0] for name in selection})
    return {
        "families": {
            f: {
                "candidate": version(f),
                "incumbent": incumbent or version(f),
                "decision": {"promote": promote},
            }
            for f in families
        },
        "losses": {
            "selection": losses(selection, ORIGINS, sure=sure),
            "test": losses(selection, 3, sure=True),
        },
    }


def confirmation(change_pct: float, *, sessions: int = 28) -> dict[str, Any]:
    """A longer holdout of kronos: against naive, and against last month's candidate."""
    tests = [
        {"family": "kronos", "against": rival, "change_pct": change, "origins": 4, "p_value": None}
        for rival, change in (("naive", 99.0), ("last_month", change_pct))
    ]
    return {"holdout_days": sessions, "tests": tests}
