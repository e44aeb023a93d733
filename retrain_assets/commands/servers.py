"""Commands that hand over to other programs: `retrain ui`, `retrain mlflow`, `retrain env`."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
from typing import Annotated

import typer

from retrain_assets.commands.console import dagster_instance, opened
from retrain_assets.errors import BadInput
from retrain_assets.home import DAGSTER_PAGE, ENVIRONMENT, MLFLOW_PAGE

HOST = "127.0.0.1"

_UI_PORT, _MLFLOW_PORT = [int(page.rsplit(":", 1)[1]) for page in (DAGSTER_PAGE, MLFLOW_PAGE)]
_Port = Annotated[int, typer.Option(min=1024, max=65535, help="Where to listen.")]


def ui(port: _Port = _UI_PORT) -> None:
    """Serve Dagster's web pages and its daemon until Ctrl-C, on loopback only.

    Examples:

    - `retrain ui`

    - `retrain ui --port 3001`

    Schedule and sensors work while it runs. Materialize what you like on the pages: it is the same
    as what `retrain run` does.
    """
    home, _ = opened()
    require_free(port, "ui")
    with dagster_instance(home):
        pass
    print(f"Dagster on http://{HOST}:{port}, Ctrl-C to stop", flush=True)
    workspace = str(home.dagster / "workspace.yaml")
    arguments = ["dev", "--host", HOST, "--port", str(port), "--workspace", workspace]
    # Replaces this process, so that signals reach the server itself.
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *arguments])


def mlflow(port: _Port = _MLFLOW_PORT) -> int:
    """Serve MLflow's web pages until Ctrl-C, on loopback only.

    Examples:

    - `retrain mlflow`

    - `retrain mlflow --port 5001`

    Links on Dagster's pages lead to the usual port.
    """
    from retrain_assets.defs.resources import build_resources
    from retrain_assets.guard import run_guarded

    home, _ = opened()
    require_free(port, "mlflow")
    tracking = build_resources(home)["tracking"]
    tracking.client()
    print(f"MLflow on http://{HOST}:{port} in half a minute, Ctrl-C to stop", flush=True)
    print("Its pages begin with language models: choose Model training, top left, once", flush=True)
    arguments = ["server", "--backend-store-uri", tracking.uri, "--host", HOST]
    arguments += ["--port", str(port), "--artifacts-destination", tracking.artifacts]
    return run_guarded([sys.executable, "-m", "mlflow", *arguments])


def env() -> None:
    """Print the shell lines that let `dg` and `dagster` use this installation.

    Example: `eval "$(retrain env)"`, then
    `dg launch --job retrain_stock --partition "2023-08|AAPL"`

    RETRAIN_DATABASE, which may hold a password, is not printed: export it in that shell yourself.
    """
    home, _ = opened()
    with dagster_instance(home):
        pass
    for name in ("DAGSTER_HOME", ENVIRONMENT):
        print(f"export {name}={shlex.quote(os.environ[name])}")


def require_free(port: int, command: str) -> None:
    """Raise BadInput, naming who listens there as far as can be told, if a port is taken."""
    with socket.socket() as probe:
        # A server that has just ended leaves its port in a state that only this one passes over.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(
                f"port {port} of {HOST} cannot be used ({error.strerror}{_holder(port)}): end what "
                f"listens there, or choose another port with `retrain {command} --port`"
            ) from error


def _holder(port: int) -> str:
    """Which process listens on a port, in words; empty where the system does not tell."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f", by process {connection.pid} {psutil.Process(connection.pid).name()}"
    return ""
