"""Puts the examples of CONTRIBUTING.md where they will be, for as long as their tests run."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrain_assets import models
from retrain_assets.market import feeds as feeds_package
from retrain_assets.market.feeds import feeds
from retrain_assets.models.forecaster import families
from retrain_assets_tests.market.vendors import over_requests, vendor

__all__ = ["over_requests", "vendor"]
HERE = Path(__file__).parent
FEED = "retrain_assets/market/feeds/example.py"
NAMES = (f"{models.__name__}.nlinear", f"{feeds_package.__name__}.example")


def printed(file: str) -> str:
    """The block of code that follows a file's name in CONTRIBUTING.md."""
    told = (HERE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, after = told.partition(f"`{file}`")
    found = re.search(r"\n( *)```python\n(.*?)\n\1```", after, re.DOTALL)
    assert found, file
    return textwrap.dedent(found[2]) + "\n"


@pytest.fixture(scope="module", autouse=True)
def in_their_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The family and the feed, found as if they lay beside the others."""
    folder = tmp_path_factory.mktemp("feeds")
    (folder / Path(FEED).name).write_text(printed(FEED), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "__path__", [str(HERE), *models.__path__])
        patch.setattr(feeds_package, "__path__", [str(folder), *feeds_package.__path__])
        forget()
        yield
    forget()


def forget() -> None:
    """What was found before, and what is in no other place."""
    families.cache_clear()
    feeds.cache_clear()
    for name in [n for n in sys.modules if n.startswith(NAMES)]:
        del sys.modules[name]
