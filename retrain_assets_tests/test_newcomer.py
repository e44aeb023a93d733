"""A newcomer's first quarter of an hour: clone, the README's own commands, a click in the page.

The clone has an environment of its own, in which only this package is installed; all others are
borrowed from where the tests run, so that nothing is downloaded. Screenshots are kept in
`.newcomer/` of the checkout, or where RETRAIN_SCREENSHOTS says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retrain_assets_tests.browser import browser
from retrain_assets_tests.ports import free_port
from retrain_assets_tests.servers import PATIENCE, kept, served

__all__ = ["browser"]
ROOT = Path(__file__).parents[1]
STOCK, MONTH = "NVDA", "2023-08"
MILLISECONDS = 1000
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is no repository to clone"),
]


def commands(text: str) -> list[str]:
    """The `make` commands of a README's shell blocks, in their order."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = (line.partition("#")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line.startswith("make ")]


@dataclass(frozen=True)
class Clone:
    """A fresh clone, and the shell in which a newcomer works there."""

    root: Path
    environment: dict[str, str]

    def run(self, command: str) -> str:
        """What a command prints; fails with that if it fails."""
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    root = tmp_path_factory.mktemp("newcomer") / "retrain_assets"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    venv.create(root / ".venv", symlinks=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(root / ".venv")}, scheme="venv"))
    # A path of a .pth file is searched, but what .pth files lie there is not read: the package
    # that the tests run is not among what is borrowed.
    (purelib / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (root / ".venv" / ".locked").touch()
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return Clone(root, environment | {"PYTHON": sys.executable, "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def shown(clone: Clone) -> str:
    """What the README's command for the demo printed, for one stock."""
    demo = next(c for c in commands((clone.root / "README.md").read_text()) if "demo" in c)
    return clone.run(f"{demo} STOCKS={STOCK}")


def test_the_demo_ends_with_a_table_beside_naive(shown: str) -> None:
    assert STOCK in shown
    assert "naive" in shown
    assert "Traceback" not in shown


@pytest.fixture(scope="module")
def page(clone: Clone, shown: str) -> Iterator[str]:
    """Dagster's pages over what the demo left; the README's command but for the port."""
    port = free_port()
    command = [str(clone.root / ".venv" / "bin" / "retrain"), "ui", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with served(command, address, environment=clone.environment, root=clone.root):
        yield address


def test_a_click_materializes_a_partition_that_shows_its_picture(browser: Any, page: str) -> None:
    """The month's summary, which takes seconds: the graph, one click, green, the picture."""
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    try:
        tab = context.new_page()
        tab.set_default_timeout(60 * MILLISECONDS)
        tab.goto(f"{page}/asset-groups")
        for group in ("market", "training", "search", "comparison", "promotion"):
            tab.get_by_text(group, exact=True).first.wait_for()
        kept(tab, "1-graph")
        partition = f"{page}/assets/comparison_summary?view=partitions&partition={MONTH}"
        tab.goto(partition)
        before = run_shown(tab)
        tab.get_by_role("button", name="Materialize").first.click()
        launch = tab.get_by_role("button", name="Launch 1 run")
        launch.wait_for()
        kept(tab, "2-launch")
        launch.click()
        launch.wait_for(state="hidden")
        until = time.monotonic() + PATIENCE
        while (run := run_shown(tab)) == before or status_of(page, run) != "SUCCESS":
            assert status_of(page, run) != "FAILURE", run
            assert time.monotonic() < until, "the run did not end"
            time.sleep(1)
            tab.goto(partition)
        tab.reload()  # what it shows was asked for before the run was seen to have ended
        assert run_shown(tab) == run
        tab.get_by_text("Materialized", exact=True).first.wait_for()
        tab.get_by_text("[Show Markdown]").first.click()
        picture = tab.get_by_role("img", name="By stock")
        picture.wait_for()
        assert picture.evaluate("one => one.complete && one.naturalWidth") > 0
        kept(tab, "3-partition")
    finally:
        context.close()


def run_shown(tab: Any) -> str:
    """The run, its id cut short, that the partition on the page was last materialized by."""
    link = tab.locator("a[href*='/runs/']").first
    link.wait_for()
    return str(link.inner_text()).strip()


def status_of(page: str, run: str) -> str:
    """How a run ended, by what its page asks the server."""
    query = {"query": "{ runsOrError { ... on Runs { results { runId status } } } }"}
    asked = urllib.request.Request(
        f"{page}/graphql", json.dumps(query).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as reply:
        runs = json.load(reply)["data"]["runsOrError"]["results"]
    (found,) = [one["status"] for one in runs if one["runId"].startswith(run)]
    return str(found)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_command_of_the_readme_works_in_a_fresh_environment(tmp_path: Path) -> None:
    """Nothing is borrowed here: `make demo` installs what is locked, then all six stocks run."""
    root = tmp_path / "retrain_assets"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RETRAIN_", "VIRTUAL"))}
    told = commands((root / "README.md").read_text())
    assert {"make demo", "make ui", "make mlflow"} <= set(told)
    (root / "demo.log").write_text(
        subprocess.run(
            ["make", "demo"], cwd=root, env=environment, check=True, capture_output=True, text=True
        ).stdout
    )
    for name, port in (("ui", 3000), ("mlflow", 5000)):
        address = f"http://127.0.0.1:{port}"
        with served(["make", name], address, environment=environment, root=root):
            pass
