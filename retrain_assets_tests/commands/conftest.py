"""Two months that were walked through, with what was decided on them: made once for all workers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain_assets.files import write_json
from retrain_assets.home import Home
from retrain_assets_tests.installed import entered, made_once
from retrain_assets_tests.walked import (
    AUGUST,
    JULY,
    copied,
    decided,
    forget_last_month,
    materialized,
    plant_a_gain,
    run_month,
    summarised,
)


@pytest.fixture(scope="session")
def walked_once(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """July and August have run, and what the two decided stands."""

    def walk(root: Path) -> None:
        with copied(Home(template), root) as home:
            for month in (JULY, AUGUST):
                run_month(home, month)

    home = Home(made_once(tmp_path_factory, "walked", walk))
    # Every correction of statsmodels collects garbage: spare it what is loaded by now.
    gc.freeze()
    yield home
    gc.unfreeze()


@pytest.fixture(scope="session")
def promoted_once(walked_once: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """August's Kronos candidate errs so much less that it was promoted, and is in production.

    Of AAA, which was never retrained, naive is.
    """

    def promote(root: Path) -> None:
        with copied(walked_once, root) as home:
            plant_a_gain(home, AUGUST)
            decided(home)
            assert materialized(home, "AAA", AUGUST, "market_bars", "champion").success
            summarised(home)

    return Home(made_once(tmp_path_factory, "promoted", promote))


@pytest.fixture(scope="session")
def kept_once(walked_once: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """July's Kronos candidate was promoted; August has no forecasts of it and is to be decided."""

    def keep(root: Path) -> None:
        with copied(walked_once, root) as home:
            plant_a_gain(home, JULY)
            decided(home, JULY)
            write_json(home.root / "forgotten.json", forget_last_month(home, AUGUST))

    return Home(made_once(tmp_path_factory, "kept", keep))


@pytest.fixture
def walked(walked_once: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The two months, to be read only."""
    return entered(walked_once.root, monkeypatch)


@pytest.fixture
def own(walked_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of the two months."""
    with copied(walked_once, tmp_path / "data") as home:
        yield home


@pytest.fixture
def promoted(promoted_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of the promotion."""
    with copied(promoted_once, tmp_path / "data") as home:
        yield home


@pytest.fixture
def kept(kept_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of July's promotion, with August to be decided."""
    with copied(kept_once, tmp_path / "data") as home:
        yield home
