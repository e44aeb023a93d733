"""MLflow's own page, in headless Chromium: two months of a stock are compared by clicks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.home import Home
from retrain_assets_tests.browser import browser
from retrain_assets_tests.ports import free_port
from retrain_assets_tests.servers import kept, served
from retrain_assets_tests.walked import AUGUST, JULY, STOCK

__all__ = ["browser"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture
def page(walked: Home) -> Iterator[str]:
    """The pages of `retrain mlflow` over the two months."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "retrain"), "mlflow", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with served(command, address):
        yield address


def test_two_months_stand_side_by_side_after_a_few_clicks(browser: Any, page: str) -> None:
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    try:
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(page)
        tab.get_by_text("Model training", exact=True).first.click()
        tab.get_by_role("link", name="Experiments").first.click()
        tab.get_by_role("link", name="kronos_params").first.click()
        tab.get_by_text("A run is one search of inference parameters.").first.wait_for()
        for month in (JULY, AUGUST):
            row = tab.get_by_role("row").filter(has_text=f"{month}|{STOCK}")
            row.get_by_role("checkbox").first.click()
        tab.get_by_role("button", name="Compare").first.click()
        tab.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
        kept(tab, "4-two-months")
        shown = tab.inner_text("body")
        for name in ("best.temperature", "split.n_bars", "expected_gain_over_naive_pct"):
            assert name in shown
        for month in (JULY, AUGUST):
            assert f"{month}|{STOCK}" in shown
    finally:
        context.close()
