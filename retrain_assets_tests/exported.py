"""A data folder with champions of two stocks, made by hand: what an export is tested on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrain_assets.evaluation.contenders import adapted
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.models.forecaster import family
from retrain_assets.training import adapters
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.training.policy import PlanOverrides, plan
from retrain_assets.training.splits import make_split
from retrain_assets_tests.installed import install, made_bars

JULY, AUGUST = "2023-07", "2023-08"
KRONOS = "kronostraining/artifacts/stock_specific"
TOTO = "tototraining/stock_models"
CHOSEN = {
    "kronos": {"num_samples": 4, "temperature": 0.7, "top_k": None, "top_p": 0.9},
    "toto": {"temperature": 0.5, "use_past_values": True},
}


def trained(
    home: Home, name: str, symbol: str, month: str, *, steps: int = 2, seed: int = 0
) -> AdapterRecord:
    """An adapter of the tiny base after a few steps, of which 16 make an epoch."""
    count, own = 330, family(name)
    limits = own.limits("tiny", checkpoints=home.checkpoints)
    overrides = PlanOverrides(epochs=3, rank=2, learning_rate=5e-3, loss="huber")
    made = plan(count, 10.0, name, limits, overrides)
    split = make_split(
        count, context=made.context, horizon=made.horizon, holdout_days=7, limits=limits
    )
    return (
        adapters.prepare(
            family_name=name,
            base="tiny",
            symbol=symbol,
            month=month,
            bars=made_bars(count, seed=seed),
            plan=made,
            split=split,
            seed=seed,
            store=ModelStore(home.models),
            checkpoints=home.checkpoints,
            device="cpu",
            max_steps=steps,
        )
        .train(report=lambda progress: None)
        .record
    )


def zero_shot(adapter: AdapterRecord) -> Version:
    base = adapted(adapter, family(adapter.family).default_settings, seed=0)
    return replace(base, adapter=None, month="")


def chosen(adapter: AdapterRecord) -> Version:
    return adapted(adapter, CHOSEN[adapter.family], seed=0)


def losses(columns: list[str], *, seed: int) -> dict[str, Any]:
    """Losses of each column on 8 selection and 3 test origins."""
    draw = np.random.default_rng(seed)
    return {
        segment: {
            "cutoff": [f"2023-0{1 + i}-0{1 + seed % 9}" for i in range(count)],
            "origin_close": draw.uniform(50, 60, count).tolist(),
            **{column: draw.uniform(1, 2, count).tolist() for column in columns},
        }
        for segment, count in (("selection", 8), ("test", 3))
    }


def comparison(symbol: str, month: str, *found: AdapterRecord) -> dict[str, Any]:
    """A `StockRecord` of a stock whose candidates are these adapters with chosen settings."""
    variants = ("zero_shot", "adapter", "chosen")
    names = ["naive", *(f"{a.family}.{v}" for a in found for v in variants)]
    measured = losses(names, seed=int(month[-2:]))
    scores = [
        {
            "unique_id": symbol,
            "segment": segment,
            "scope": "holdout",
            "horizon": 7,
            "candidate": name,
            "origins": len(table["cutoff"]),
            "mae": float(np.mean(table[name])),
            "rmse": 1.1 * float(np.mean(table[name])),
            "mae_pct": 2 * float(np.mean(table[name])),
            "return_mae": 0.02,
            "skill": -0.1,
        }
        for segment, table in measured.items()
        for name in names
    ]
    return {
        "symbol": symbol,
        "month": month,
        "plan_horizon": 16,
        "holdout_days": 7,
        "latency_s": {name: 0.001 * (1 + place) for place, name in enumerate(names)},
        "scores": scores,
        "losses": measured,
        "candidates": {
            a.family: {"name": f"{a.family}.chosen", "version": chosen(a).to_json()} for a in found
        },
        "zero_shot": {a.family: zero_shot(a).to_json() for a in found},
        "last_month": {},
    }


def decision(promote: bool) -> dict[str, Any]:
    reason = "it errs less" if promote else "it does not err less for certain"
    return {
        "promote": promote, "reason": reason, "candidate": "c", "incumbent": "i",
        "numbers": {}, "rules": {},
    }  # fmt: skip


def state(candidate: Version, incumbent: Version, *, promote: bool) -> dict[str, Any]:
    """One family of a champion record of August."""
    return {
        "champion": (candidate if promote else incumbent).to_json(),
        "since": AUGUST if promote else JULY,
        "candidate": candidate.to_json(),
        "incumbent": incumbent.to_json(),
        "decision": decision(promote),
    }


def champion(
    compared: Mapping[str, Any], states: dict[str, dict[str, Any]], *, to: str
) -> dict[str, Any]:
    """A champion record of August; production points to a family's champion or to naive."""
    version = NAIVE_VERSION.to_json() if to == "naive" else states[to]["champion"]
    columns = ["naive", "pointer.incumbent"]
    columns += [f"{name}.{one}" for name in states for one in ("incumbent", "candidate")]
    decided = losses(columns, seed=8)
    return {
        "symbol": compared["symbol"],
        "month": AUGUST,
        "cut": "2023-08-31",
        "final": True,
        "live": True,
        "decided_at": "2023-09-01T06:00:00+00:00",
        "previous_month": JULY,
        "rolled_back_to": None,
        "notes": [],
        "families": states,
        "pointer": {
            "to": to,
            "version": version,
            "since": AUGUST,
            "incumbent": NAIVE_VERSION.to_json(),
            "decision": decision(to != "naive"),
        },
        "losses": decided,
        "history": {},
    }


@dataclass(frozen=True)
class Made:
    """A data folder with champions, and the adapters in it.

    AAA: this month's adapter of Kronos is in production; Toto's champion is July's adapter.
    BBB: naive is in production, Kronos' champion is the base alone, Toto was not trained.
    SHORT failed. GONE has no bars any more.
    """

    home: Home
    kronos: AdapterRecord
    toto: AdapterRecord
    toto_july: AdapterRecord
    kronos_b: AdapterRecord

    def comparison(self, symbol: str, month: str = AUGUST) -> dict[str, Any]:
        path = self.home.results / "comparison_results" / month / f"{symbol}_comparison.json"
        return dict(read_json(path))

    def live(self, symbol: str) -> dict[str, Any]:
        found = ProductionStore(self.home.production).live(symbol)
        assert found is not None
        return found

    def decide(self, record: dict[str, Any]) -> None:
        ProductionStore(self.home.production).set_live(record)


def make(root: Path) -> Made:
    """Fill an empty folder with all of it."""
    home = install(root)
    made = Made(
        home,
        kronos=trained(home, "kronos", "AAA", AUGUST, steps=20),
        toto=trained(home, "toto", "AAA", AUGUST),
        toto_july=trained(home, "toto", "AAA", JULY, steps=20, seed=1),
        kronos_b=trained(home, "kronos", "BBB", AUGUST),
    )
    folder = home.results / "comparison_results"
    both = comparison("AAA", AUGUST, made.kronos, made.toto)
    one = comparison("BBB", AUGUST, made.kronos_b)
    for record in (both, one, comparison("AAA", JULY, made.toto_july)):
        place = folder / record["month"]
        write_json(place / f"{record['symbol']}_comparison.json", record)
        (place / f"{record['symbol']}_comparison.txt").write_text(f"{record['symbol']} in words\n")
    results = {"AAA": {"error": None}, "BBB": {"error": None}, "SHORT": {"error": "150 bars"}}
    write_json(folder / AUGUST / "comparison_summary_h16.json", {"results": results})
    searches = [
        {
            "stock": "AAA",
            "kronos": {"status": "success", "best_mae": 2.5, "best_params": {"temperature": 0.7}},
            "toto": {"status": "success", "best_mae": 2.1, "best_params": {"temperature": 0.5}},
        },
        {"stock": "BBB", "kronos": {"status": "failed", "error": "too few bars"}},
    ]
    name = "hyperparameter_validation_results.json"
    write_json(home.results / "validation_results" / AUGUST / name, searches)
    regressions = {"regressions": [], "failures": [], "summary": {"total_regressions": 0}}
    write_json(home.results / "regression" / AUGUST / "regression_analysis.json", regressions)
    kronos = state(chosen(made.kronos), zero_shot(made.kronos), promote=True)
    toto = state(chosen(made.toto), chosen(made.toto_july), promote=False)
    made.decide(champion(both, {"kronos": kronos, "toto": toto}, to="kronos"))
    kept = state(chosen(made.kronos_b), zero_shot(made.kronos_b), promote=False)
    made.decide(champion(one, {"kronos": kept}, to="naive"))
    made.decide(champion(one | {"symbol": "GONE"}, {"kronos": kept}, to="naive"))
    return made


@pytest.fixture(scope="session")
def champions(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The data folder, to be read only."""
    return make(tmp_path_factory.mktemp("export") / "data")


@pytest.fixture
def own_champions(champions: Made, tmp_path: Path) -> Made:
    """A copy of it, to be changed."""
    shutil.copytree(champions.home.root, tmp_path / "data")
    return replace(champions, home=Home(tmp_path / "data"))


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder, by their paths in it."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
