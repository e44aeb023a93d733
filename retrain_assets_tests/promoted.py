"""A data folder in which champions stand: what live use and serving are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.files import write_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import ModelLimits, family
from retrain_assets.training import adapters
from retrain_assets.training.adapter_store import ModelStore
from retrain_assets.training.policy import PlanOverrides, plan
from retrain_assets.training.splits import make_split
from retrain_assets_tests.installed import MONTH, install

SYMBOL = "AAA"


def bars_of(home: Home, symbol: str = SYMBOL) -> pd.DataFrame:
    """All stored bars of a symbol."""
    return BarStore(home.market).read(symbol)


def trained(home: Home, symbol: str = SYMBOL, month: str = MONTH) -> Version:
    """A version of Kronos with an adapter of two steps, stored below `home` under a month."""
    bars = BarStore(home.market).read(symbol, until=pd.Timestamp("2023-08-31"))
    limits = ModelLimits(512)
    overrides = PlanOverrides(epochs=2, rank=4, learning_rate=5e-3, loss="huber")
    made = plan(len(bars), 10.0, "kronos", limits, overrides)
    split = make_split(
        len(bars), context=made.context, horizon=made.horizon, holdout_days=7, limits=limits
    )
    record = (
        adapters.prepare(
            family_name="kronos",
            base="tiny",
            symbol=symbol,
            month=month,
            bars=bars,
            plan=made,
            split=split,
            seed=0,
            store=ModelStore(home.models),
            checkpoints=home.checkpoints,
            device="cpu",
            max_steps=2,
        )
        .train(report=lambda progress: None)
        .record
    )
    return Version(
        family="kronos",
        base="tiny",
        fingerprint=record.fingerprint,
        month=month,
        adapter=record.to_json(),
        settings={"num_samples": 4, "temperature": 0.9, "top_k": None, "top_p": 0.9},
        context=split.context,
        seed=3,
    )


def untouched(home: Home, name: str, base: str, *, context: int) -> Version:
    """A version of a base without an adapter, with its published settings."""
    own = family(name)
    model = own.load(base, checkpoints=home.checkpoints, device="cpu")
    return Version(
        family=name,
        base=base,
        fingerprint=model.fingerprint,
        settings=dict(own.default_settings),
        context=context,
    )


def promote(home: Home, symbol: str, best: Version, *champions: Version) -> dict[str, Any]:
    """Put champions of their families in production, and `best` on top; returns the record."""
    decision = {
        "promote": True,
        "reason": "made for a test",
        "candidate": best.id,
        "incumbent": NAIVE_VERSION.id,
        "numbers": {},
        "rules": {},
    }
    shared = {"since": MONTH, "incumbent": NAIVE_VERSION.to_json(), "decision": decision}
    record = {
        "symbol": symbol,
        "month": MONTH,
        "cut": "2023-08-31",
        "final": True,
        "live": True,
        "decided_at": "2023-09-01T00:00:00+00:00",
        "previous_month": None,
        "notes": [],
        "families": {
            one.family: {"champion": one.to_json(), "candidate": one.to_json(), **shared}
            for one in champions
        },
        "pointer": {"to": best.family, "version": best.to_json(), **shared},
        "losses": {},
        "history": {},
    }
    write_json(home.production / symbol / "live.json", record)
    return record


def promoted_home(root: Path) -> Home:
    """An installation where AAA has champions of two families, and naive is best for BBB.

    SHORT has bars and nothing was ever decided for it; NONE is listed without bars.
    """
    home = install(root)
    kronos, toto = trained(home), untouched(home, "toto", "tiny", context=128)
    promote(home, SYMBOL, kronos, kronos, toto)
    promote(home, "BBB", NAIVE_VERSION, untouched(home, "kronos", "tiny", context=128))
    return home
