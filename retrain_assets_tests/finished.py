"""A data folder in which the whole pipeline has run once, for tests that look at the result."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import dagster as dg
import pytest

from retrain_assets import runs
from retrain_assets.definitions import build_definitions
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.work import Retrain, Search, Work
from retrain_assets_tests.installed import MONTH, entered, made_once

SMALL = Search(
    grid={
        "num_samples": (2, 4),
        "temperature": (0.6, 1.0),
        "top_k": (3, None),
        "top_p": (0.8, None),
    }
)
QUICK = Retrain(families=("kronos",), bases={"kronos": "tiny"}, max_steps=3, search=SMALL)

TOLD = "told.json"
"""What came of the run, for workers that did not run it."""


@dataclass(frozen=True)
class Finished:
    """An installation after one run of three stocks, of which SHORT cannot be done."""

    home: Home
    outcomes: dict[str, runs.Outcome]
    files: list[Path]


def ran(
    home: Home, *symbols: str, month: str = MONTH, work: Work = QUICK
) -> dict[str, runs.Outcome]:
    """Outcomes of one stock after the other, by symbol."""
    with dg.DagsterInstance.get() as instance:
        defs = build_definitions(home, device="cpu")
        return {o.symbol: o for o in runs.run_stocks(defs, instance, symbols, month, work)}


@pytest.fixture(scope="session")
def finished_once(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run itself; tests ask for `finished`, which also points the environment at it."""

    def finish(root: Path) -> None:
        shutil.copytree(template, root)
        with pytest.MonkeyPatch.context() as patch:
            home = entered(root, patch)
            outcomes = ran(home, "AAA", "SHORT", "BBB")
            with dg.DagsterInstance.get() as instance:
                defs = build_definitions(home)
                files = runs.summarise(defs, instance, MONTH, list(outcomes.values()), QUICK)
        told = {symbol: asdict(outcome) for symbol, outcome in outcomes.items()}
        write_json(root.parent / TOLD, {"outcomes": told, "files": list(map(str, files))})

    home = Home(made_once(tmp_path_factory, "finished", finish))
    told = read_json(home.root.parent / TOLD)
    outcomes = {symbol: runs.Outcome(**one) for symbol, one in told["outcomes"].items()}
    return Finished(home, outcomes, [Path(file) for file in told["files"]])


@pytest.fixture
def finished(finished_once: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """The finished installation, to be read only."""
    entered(finished_once.home.root, monkeypatch)
    return finished_once


@pytest.fixture
def searched(finished_once: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A copy of the finished installation, to go on with."""
    shutil.copytree(finished_once.home.root, tmp_path / "searched")
    return entered(tmp_path / "searched", monkeypatch)
