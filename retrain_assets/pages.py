"""Commands that hand over to other programs: `retrain ui`, `retrain mlflow`, `retrain env`."""

from __future__ import annotations

import os
import shlex
import sys

from retrain_assets.home import DAGSTER_PAGE, ENVIRONMENT, MLFLOW_PAGE
from retrain_assets.opened import dagster_instance, opened


def ui() -> None:
    """Serve Dagster's web pages and its daemon until Ctrl-C, on loopback only."""
    home, _ = opened()
    with dagster_instance(home):
        pass
    print(f"Dagster on {DAGSTER_PAGE}, Ctrl-C to stop", flush=True)
    host, port = DAGSTER_PAGE.removeprefix("http://").split(":")
    workspace = str(home.dagster / "workspace.yaml")
    arguments = ["dev", "--host", host, "--port", port, "--workspace", workspace]
    _become("dagster", arguments)


def mlflow() -> None:
    """Serve MLflow's web pages until Ctrl-C, on loopback only."""
    from retrain_assets.defs.resources import build_resources

    home, _ = opened()
    tracking = build_resources(home)["tracking"]
    tracking.client()
    print(f"MLflow on {MLFLOW_PAGE}, Ctrl-C to stop", flush=True)
    host, port = MLFLOW_PAGE.removeprefix("http://").split(":")
    arguments = ["server", "--backend-store-uri", tracking.uri, "--host", host, "--port", port]
    arguments += ["--artifacts-destination", tracking.artifacts]
    _become("mlflow", arguments)


def env() -> None:
    """Print the shell lines that let `dg` and `dagster` use this installation.

    Example: `eval "$(retrain env)"`, then
    `dg launch --job retrain_stock --partition "2023-08|AAPL"`
    """
    home, _ = opened()
    with dagster_instance(home):
        pass
    for name in ("DAGSTER_HOME", ENVIRONMENT):
        print(f"export {name}={shlex.quote(os.environ[name])}")


def _become(module: str, arguments: list[str]) -> None:
    """Replace this process, so that signals reach the server itself."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
