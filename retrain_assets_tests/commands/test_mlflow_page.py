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
from retrain_assets_tests.servers import served

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


def test_two_months_stand_side_by_side_after_three_clicks(browser: Any, page: str) -> None:
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.goto(page)
    tab.wait_for_timeout(8000)
    tab.screenshot(path="/tmp/work/m1.png")
    print(tab.inner_text("body")[:3000])
