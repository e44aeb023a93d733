"""What orchestration costs: seconds a stock beyond the library's own work, ours and Dagster's.

    python -m benchmarks.orchestration            6 and 24 stocks, all ways to launch them
    python -m benchmarks.orchestration --gate     6 stocks, launched from the page

The default executor takes about a minute a stock, so its side has two stocks each way.

Both sides run in one invocation on the same machine, stocks, settings and records; they differ in
the executor alone: one process a stock, or, as is Dagster's default, one process a step. The
library's work is played back (see `no_compute`). Seconds are from the first run's creation to the
last one's end, over the number of stocks, as many at a time as the pool takes here; what the daemon
waits before the first run stands apart. Other work on the machine makes every number larger, but
both sides alike: the ratio is what to go by where it is not quiet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.no_compute import (
    EXECUTOR_VARIABLE,
    HEAVY_VARIABLE,
    SYMBOL_VARIABLE,
    TEMPLATE_VARIABLE,
)
from retrain_assets.warm import COLD_VARIABLE, WARM

ROOT = Path(__file__).parents[1]
MONTH, TEMPLATE = "2023-08", "AAPL"
PAGE, SCHEDULE, BACKFILL = "page", "schedule", "backfill"
LETTERS = {PAGE: "P", SCHEDULE: "S", BACKFILL: "B"}
OURS, DEFAULT = "in_process", "multiprocess"
HEAVY = "torch peft"
TARGET, TARGET_HEAVY, TARGET_RATIO = 3.0, 8.0, 4.0
PATIENCE = 1800.0
DEFAULT_STOCKS = 2
"""Stocks of the default executor's side."""
WORKSPACE = """\
load_from:
  - python_module: {module_name: benchmarks.no_compute_location, location_name: retrain_assets}
"""
TINY = (
    *("--stocks", TEMPLATE, "--month", MONTH, "--base", "nano", "--context-length", "128"),
    *("--max-steps", "1", "--no-progress", "--device", "cpu"),
    *("--grid", "num_samples=2", "temperature=.6", "top_k=off", "top_p=.9"),
)


@dataclass(frozen=True)
class Side:
    """One way to run.

    executor: of the job. warm: whether runs are forked from a process that has the imports done.
    heavy: what is imported where a model would be loaded.
    """

    executor: str
    warm: bool = True
    heavy: str = ""

    @property
    def title(self) -> str:
        """For the table."""
        name = "default executor" if self.executor == DEFAULT else "ours" if self.warm else "cold"
        return f"{name}, torch and peft imported" if self.heavy else name


@dataclass(frozen=True)
class Row:
    """What was measured. waited: seconds before the first run. seconds: a stock."""

    side: Side
    launch: str
    stocks: int
    waited: float
    seconds: float


class Server:
    """Dagster's pages and daemon over a data folder of stocks that compute nothing."""

    def __init__(self, folder: Path, template: Path, side: Side, stocks: dict[str, int]) -> None:
        self.home, self.side, self.stocks = folder / "data", side, stocks
        self._template, self._log = template, folder / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._fill()

    def symbols(self, launch: str) -> list[str]:
        """The stocks of one way to launch."""
        return [f"{LETTERS[launch]}{i:02}" for i in range(self.stocks.get(launch, 0))]

    def _fill(self) -> None:
        """A data folder in which every stock has the template's bars."""
        self.home.mkdir(parents=True)
        shutil.copytree(self._template / "checkpoints", self.home / "checkpoints")
        symbols = [symbol for launch in self.stocks for symbol in self.symbols(launch)]
        lines = "".join(f"  - {{symbol: {symbol}}}\n" for symbol in symbols)
        (self.home / "universe.yaml").write_text(f'first_month: "2023-01"\nstocks:\n{lines}')
        code = (
            "import sys; from pathlib import Path\n"
            "from retrain_assets.market.bars import BarStore\n"
            f"bars = BarStore(Path({str(self._template / 'market')!r})).read({TEMPLATE!r})\n"
            f"store = BarStore(Path({str(self.home / 'market')!r}))\n"
            "for symbol in sys.argv[1:]: store.write(symbol, bars, source='benchmark')\n"
            "from retrain_assets.home import Home\n"
            "from retrain_assets.commands.console import dagster_instance\n"
            f"home = Home(Path({str(self.home)!r})); home.prepare()\n"
            "dagster_instance(home).dispose()\n"
            "from retrain_assets.defs.resources import build_resources\n"
            "build_resources(home)['tracking'].client()\n"
        )
        called([sys.executable, "-c", code, *symbols], self.environment)
        (self.home / "dagster" / "workspace.yaml").write_text(WORKSPACE)

    @property
    def environment(self) -> dict[str, str]:
        """Of the server, which its runs inherit."""
        return environment(self.home) | {
            TEMPLATE_VARIABLE: str(self._template),
            SYMBOL_VARIABLE: TEMPLATE,
            EXECUTOR_VARIABLE: self.side.executor,
            HEAVY_VARIABLE: self.side.heavy,
            COLD_VARIABLE: "" if self.side.warm else "1",
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Serve until the block ends."""
        workspace = str(self.home / "dagster" / "workspace.yaml")
        command = [sys.executable, "-m", "dagster", "dev", "--workspace", workspace]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("w") as log:
            process = subprocess.Popen(
                command, env=self.environment, cwd=self.home, stdout=log, stderr=log
            )
        try:
            self._wait_until_up()
            yield self
        finally:
            end(process)

    def _wait_until_up(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, KeyError):
                entries = self.ask(_LOADED)["workspaceOrError"]["locationEntries"]
                loaded = [entry["loadStatus"] for entry in entries] == ["LOADED"]
                if loaded and (not self.side.warm or WARM in self._log.read_text()):
                    return
            if time.monotonic() > until:
                raise SystemExit(f"the server did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.5)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query as the page does; ends the program if it is refused."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            body,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as reply:
            answer = json.load(reply)
        if answer.get("errors"):
            raise SystemExit(f"the server refused: {answer['errors']}")
        return dict(answer["data"])


_LOADED = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"
_REPOSITORY = {"repositoryLocationName": "retrain_assets", "repositoryName": "__repository__"}


def launch_from_page(server: Server, symbols: Sequence[str]) -> None:
    """What the launch button sends, once a stock."""
    query = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
        __typename ... on PythonError { message } } }"""
    selector = _REPOSITORY | {"pipelineName": "retrain_stock"}
    for symbol in symbols:
        dimensions = {"": f"{MONTH}|{symbol}", "/month": MONTH, "/stock": symbol}
        tags = [{"key": f"dagster/partition{k}", "value": v} for k, v in dimensions.items()]
        params = {"selector": selector, "runConfigData": "{}", "mode": "default"}
        params["executionMetadata"] = {"tags": tags}
        require(server.ask(query, p=params)["launchRun"], "LaunchRunSuccess")


def launch_by_schedule(server: Server, symbols: Sequence[str]) -> None:
    """Turn the schedule on; its next tick asks for all of them."""
    query = """mutation($s: ScheduleSelector!) { startSchedule(scheduleSelector: $s) {
        __typename ... on PythonError { message } } }"""
    selector = _REPOSITORY | {"scheduleName": "ask"}
    require(server.ask(query, s=selector)["startSchedule"], "ScheduleStateResult")


def launch_by_backfill(server: Server, symbols: Sequence[str]) -> None:
    """What the page sends for several partitions at once."""
    query = """mutation($b: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $b) {
        __typename ... on PythonError { message } } }"""
    selector = {"partitionSetName": "retrain_stock_partition_set"}
    selector |= {"repositorySelector": _REPOSITORY}
    keys = [f"{MONTH}|{symbol}" for symbol in symbols]
    params = {"selector": selector, "partitionNames": keys}
    require(server.ask(query, b=params)["launchPartitionBackfill"], "LaunchBackfillSuccess")


LAUNCHES = {PAGE: launch_from_page, SCHEDULE: launch_by_schedule, BACKFILL: launch_by_backfill}


def measure(server: Server, launch: str, *, again: bool = False) -> Row:
    """Launch the stocks of one way, and wait for the last to end.

    again: they have run before, so that nothing has changed.
    """
    symbols, begun = server.symbols(launch), time.time()
    LAUNCHES[launch](server, symbols)
    runs = ended(server, symbols, begun)
    failed = [run["tags"] for run in runs if run["status"] != "SUCCESS"]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(runs)} runs failed: see {server.home}")
    first = min(run["creationTime"] for run in runs)
    last = max(run["endTime"] for run in runs)
    name = "page, unchanged" if again else launch
    return Row(server.side, name, len(symbols), first - begun, (last - first) / len(symbols))


def ended(server: Server, symbols: Sequence[str], begun: float) -> list[dict[str, Any]]:
    """The runs of these stocks that were created since, once all have ended."""
    query = """query($f: RunsFilter!) { runsOrError(filter: $f) { ... on Runs { results {
        status creationTime endTime tags { key value } } } } }"""
    done, until = {"SUCCESS", "FAILURE", "CANCELED"}, time.monotonic() + PATIENCE
    while time.monotonic() < until:
        runs = server.ask(query, f={"createdAfter": begun - 1})["runsOrError"]["results"]
        runs = [run for run in runs if stock_of(run) in symbols]
        if len(runs) >= len(symbols) and all(run["status"] in done for run in runs):
            return runs
        time.sleep(0.5)
    raise SystemExit(f"the runs did not end in {PATIENCE:.0f} s: see {server.home}")


def stock_of(run: dict[str, Any]) -> str:
    """The stock that a run is about."""
    found = {tag["key"]: tag["value"] for tag in run["tags"]}
    return str(found.get("dagster/partition/stock", ""))


def require(answer: dict[str, Any], kind: str) -> None:
    """End the program unless the answer is of this kind."""
    if answer["__typename"] != kind:
        raise SystemExit(f"the server refused: {answer}")


def environment(home: Path) -> dict[str, str]:
    """Of a process that works in a data folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RETRAIN_", "MLFLOW_"))}
    kept |= {"RETRAIN_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def called(command: Sequence[str], variables: dict[str, str]) -> None:
    """Run a command; ends the program with what it said if it fails."""
    reply = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True)
    if reply.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed:\n{reply.stdout}\n{reply.stderr}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    family = [process_ for process_ in [psutil.Process(process.pid)] if process_.is_running()]
    family += [child for one in family for child in one.children(recursive=True)]
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(family, timeout=20)
    for one in alive:
        one.kill()
    process.wait()


def made_template(folder: Path) -> Path:
    """A data folder in which one stock was really run, with the bundled bases."""
    template = folder / "template"
    template.mkdir()
    shutil.copytree(ROOT / "data" / "checkpoints", template / "checkpoints")
    (template / "market").mkdir()
    shutil.copy(ROOT / "data" / "market" / f"{TEMPLATE}.parquet", template / "market")
    universe = f'first_month: "2023-01"\nstocks:\n  - {{symbol: {TEMPLATE}}}\n'
    (template / "universe.yaml").write_text(universe)
    called([sys.executable, "-m", "retrain_assets.cli", "run", *TINY], environment(template))
    return template


def measured(folder: Path, template: Path, side: Side, stocks: dict[str, int]) -> Iterator[Row]:
    """A row for each way to launch, and one for stocks that are launched again unchanged."""
    place = folder / f"{side.title.replace(' ', '-')}-{max(stocks.values())}"
    with Server(place, template, side, stocks).running() as server:
        for launch in stocks:
            yield measure(server, launch)
        if PAGE in stocks and side == Side(OURS):
            yield measure(server, PAGE, again=True)


def plan(gate: bool) -> list[tuple[Side, dict[str, int]]]:
    """What is measured, in order."""
    bare, heavy, default = Side(OURS), Side(OURS, heavy=HEAVY), Side(DEFAULT, warm=False)
    cold = [Side(OURS, warm=False), Side(OURS, warm=False, heavy=HEAVY)]
    if gate:
        return [(bare, {PAGE: 6}), (default, {PAGE: DEFAULT_STOCKS})]
    few, many = 6, 24
    return [
        (bare, dict.fromkeys(LAUNCHES, few)),
        *((side, {PAGE: few}) for side in (heavy, *cold)),
        (bare, dict.fromkeys(LAUNCHES, many)),
        (heavy, {PAGE: many}),
        (default, dict.fromkeys(LAUNCHES, DEFAULT_STOCKS)),
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as lines, each with its ratio to the default executor's seconds."""
    lines = [f"{'':36} {'launched by':16} {'stocks':>6} {'waited':>7} {'s/stock':>8} {'ratio':>6}"]
    for row in rows:
        same = [r.seconds for r in rows if r.side.executor == DEFAULT and r.launch == row.launch]
        ratio = f"{same[-1] / row.seconds:.1f}" if same else ""
        lines.append(
            f"{row.side.title:36} {row.launch:16} {row.stocks:6} {row.waited:7.1f} "
            f"{row.seconds:8.2f} {ratio:>6}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What orchestration costs a stock.")
    parser.add_argument("--gate", action="store_true", help="6 stocks, launched from the page")
    chosen = parser.parse_args(arguments)
    load = psutil.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; on a busy machine go by the ratio")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="orchestration-") as name:
        template = made_template(Path(name))
        for side, stocks in plan(chosen.gate):
            for row in measured(Path(name), template, side, stocks):
                rows.append(row)
                print(f"measured: {table([row])[1]}", file=sys.stderr)
    print("\n".join(table(rows)))
    print(
        f"targets: {TARGET:.0f} s a stock, {TARGET_HEAVY:.0f} s with torch and peft, and "
        f"{TARGET_RATIO:.0f} times less than the default executor"
    )
    print(f"overhead per stock: {rows[0].seconds:.2f}")


if __name__ == "__main__":
    main()
