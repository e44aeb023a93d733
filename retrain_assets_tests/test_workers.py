"""Stocks side by side: the same results as one after the other, and one death costs one stock."""

from __future__ import annotations

import logging
import multiprocessing
from pathlib import Path

import pytest

from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.work import Retrain
from retrain_assets.workers import run_side_by_side
from retrain_assets_tests.finished import QUICK, Finished
from retrain_assets_tests.installed import MONTH


class Seen(logging.Handler):
    """Keeps the progress it is sent; may act on each record."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        step = record.__dict__["step"]
        self.steps.append((step.symbol, step.asset))


@pytest.mark.long
def test_side_by_side_gives_what_one_after_the_other_gives(
    finished_once: Finished, home: Home
) -> None:
    alone = finished_once.outcomes
    seen = Seen()
    outcomes = {
        outcome.symbol: outcome
        for outcome in run_side_by_side(
            home.root, ["AAA", "SHORT", "BBB"], MONTH, QUICK, device="cpu", jobs=2, listener=seen
        )
    }
    assert set(outcomes) == {"AAA", "SHORT", "BBB"}
    assert outcomes["SHORT"].error == alone["SHORT"].error
    for symbol in ("AAA", "BBB"):
        assert outcomes[symbol].error is None
        record, before = outcomes[symbol].record, alone[symbol].record
        assert record is not None
        assert before is not None
        assert record["scores"] == before["scores"]
        again, first = outcomes[symbol].params["kronos"], alone[symbol].params["kronos"]
        assert again["summary"] == first["summary"]
        file = Path("kronos_adapter") / MONTH / f"{symbol}.json"
        stored, known = (read_json(h.assets / file) for h in (home, finished_once.home))
        assert stored["digest"] == known["digest"]
        assert outcomes[symbol].run_id != alone[symbol].run_id
    assert {("AAA", "comparison"), ("BBB", "kronos_adapter")} <= set(seen.steps)


@pytest.mark.long
def test_a_process_that_dies_costs_the_stock_it_was_running(home: Home) -> None:
    class Killing(Seen):
        done = False

        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if not self.done and self.steps[-1] == ("AAA", "kronos_adapter"):
                self.done = True
                (worker,) = multiprocessing.active_children()
                worker.kill()

    slow = Retrain(families=("kronos",), bases={"kronos": "tiny"}, max_steps=400, search=None)
    outcomes = {
        outcome.symbol: outcome
        for outcome in run_side_by_side(
            home.root, ["AAA", "BBB"], MONTH, slow, device="cpu", jobs=1, listener=Killing()
        )
    }
    assert "its process died" in (outcomes["AAA"].error or "")
    assert outcomes["BBB"].error is None
