"""The pool has a place for each card, unless a person says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg
import pytest
import yaml

from retrain_assets import cards
from retrain_assets.cards import Card
from retrain_assets.commands.console import dagster_instance
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.operation import POOLS
from retrain_assets.universe import Universe
from retrain_assets_tests.installed import UNIVERSE, entered


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A data folder with nothing but its universe, on a machine without cards."""
    monkeypatch.setattr(cards, "usable", list)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "universe.yaml").write_text(UNIVERSE)
    return entered(tmp_path / "data", monkeypatch)


def limit(home: Home) -> int | None:
    """The pool's limit after one of our commands has begun."""
    with dagster_instance(home) as instance:
        limits = {p.name: p.limit for p in instance.event_log_storage.get_pool_limits()}
    return limits.get("gpu")


def with_cards(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Card(i, None, f"GPU-{i}", "H100", 8, 9, True) for i in range(count)]
    monkeypatch.setattr(cards, "usable", lambda: there)


def test_the_pool_fits_the_machine_and_grows_with_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limit(home) == os.cpu_count()
    with_cards(5, monkeypatch)
    assert limit(home) == 5
    home.universe.write_text(UNIVERSE + "operation: {pools: {gpu: 3}}\n")
    assert limit(home) == 3
    home.universe.write_text(UNIVERSE)
    assert limit(home) == 5


def test_what_a_person_has_set_stays(home: Home) -> None:
    limit(home)
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("gpu", 17)
    assert limit(home) == 17
    home.universe.write_text(UNIVERSE + "operation: {pools: {gpu: 4}}\n")
    assert limit(home) == 4


def test_an_instance_that_is_not_ours_is_left_alone(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "theirs"))
    assert limit(home) is None
    home.universe.write_text(UNIVERSE + "operation: {pools: {gpu: 4}}\n")
    assert limit(home) == 4


def test_there_may_be_two_runs_beside_those_that_compute(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most(of: Home) -> int:
        settings = yaml.safe_load((of.dagster / "dagster.yaml").read_text())["concurrency"]
        assert settings["pools"] == {"granularity": "run", "default_limit": 1}
        return int(settings["runs"]["max_concurrent_runs"])

    assert most(home) == (os.cpu_count() or 1) + 2
    with_cards(8, monkeypatch)
    other = Home(tmp_path / "other")
    other.prepare()
    assert most(other) == 10


@pytest.mark.parametrize(("pools", "told"), [("{tpu: 1}", "no pool 'tpu'"), ("{gpu: 0}", "gpu")])
def test_a_pool_that_is_none_is_refused(home: Home, pools: str, told: str) -> None:
    assert POOLS == ("gpu",)
    home.universe.write_text(f"{UNIVERSE}operation: {{pools: {pools}}}\n")
    with pytest.raises(BadInput, match=rf"universe.yaml line \d+, operation.pools.*{told}"):
        Universe.load(home.universe)
