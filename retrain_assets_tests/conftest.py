"""Settings every test shares."""

from __future__ import annotations

import os

import pytest

# Test models are tiny: a second thread costs more than it brings, and with one thread results do
# not depend on the machine. Set before torch is imported, so that child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

pytest_plugins = [
    "retrain_assets_tests.installed",
    "retrain_assets_tests.finished",
    "retrain_assets_tests.exported",
]
LONGEST_FIRST = (
    "test_newcomer",
    "test_decisions",
    "test_cli",
    "test_survival",
    "test_runs",
    "test_amiss",
)
"""Files that take a worker minutes: begun last, they would keep one while the others idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take longest begin first."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
