"""Data folders for tests: made bars, tiny bases, MLflow's empty database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from retrain_assets.home import Home

MONTH = "2023-08"
LAST_BAR = "2023-09-11"  # so September is provisional
# 360 bars are enough for a small split; 150 are not.
LENGTHS = {"AAA": 406, "BBB": 360, "SHORT": 150}
UNIVERSE = """\
first_month: "2015-01"
stocks:
  - {symbol: AAA, priority: true, aliases: [AAA.US]}
  - {symbol: BBB, overrides: {rank: 4}}
  - {symbol: SHORT}
  - {symbol: NONE, priority: true}
  - {symbol: COIN, calendar: 24/7}
"""


def made_bars(count: int, *, seed: int, last: str = LAST_BAR) -> pd.DataFrame:
    """A seeded random walk on the sessions of XNYS that end with `last`."""
    from retrain_assets.market.calendar import sessions

    draw = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(draw.normal(0, 0.02, count)))
    opening = close * np.exp(draw.normal(0, 0.005, count))
    first = pd.Timestamp(last) - pd.Timedelta(days=2 * count)
    return pd.DataFrame(
        {
            "session": sessions("XNYS", first, pd.Timestamp(last))[-count:],
            "open": opening,
            "high": np.maximum(opening, close) * 1.01,
            "low": np.minimum(opening, close) * 0.99,
            "close": close,
            "volume": draw.uniform(1e6, 2e6, count),
        }
    )


def install(root: Path) -> Home:
    """Fill an empty folder with everything a run needs."""
    from retrain_assets.market.bars import BarStore
    from retrain_assets_tests.tiny import write_base, write_toto_base

    (root / "checkpoints").mkdir(parents=True)
    (root / "universe.yaml").write_text(UNIVERSE, encoding="utf-8")
    store = BarStore(root / "market")
    for seed, (symbol, count) in enumerate(LENGTHS.items()):
        store.write(symbol, made_bars(count, seed=seed), source="made")
    write_base(root / "checkpoints")
    write_toto_base(root / "checkpoints")
    return Home(root)


def entered(root: Path, patch: pytest.MonkeyPatch) -> Home:
    """Point the environment at an installation, as a command would, until `patch` is undone."""
    found = Home(root)
    patch.setenv("RETRAIN_HOME", str(found.root))
    patch.setenv("DAGSTER_HOME", str(found.dagster))
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found.prepare()
    return found


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, whose path it is given and which does not exist before.

    All workers of a test session share it: the first to ask for it makes it, the others wait.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root, done = base / name / "data", base / name / "done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(root.parent, ignore_errors=True)  # what a failure left
            root.parent.mkdir()
            make(root)
            done.touch()
    return root


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that nothing has run in; its databases take seconds, so it is made once."""
    import dagster as dg

    from retrain_assets.defs.resources import build_resources

    def make(root: Path) -> None:
        home = install(root)
        with pytest.MonkeyPatch.context() as patch:
            entered(home.root, patch)
            build_resources(home)["tracking"].client()
            with dg.DagsterInstance.get() as instance:
                assert instance.get_runs_count() == 0

    return made_once(tmp_path_factory, "template", make)


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An installation of one's own, which the environment points at."""
    shutil.copytree(template, tmp_path / "data")
    return entered(tmp_path / "data", monkeypatch)
