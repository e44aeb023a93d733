"""Two months of one stock, one after the other, and what can be planted in them and read from them.

With the tiny bases nothing is better for certain, so losses are planted where a test is about what
follows from a decision.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest

from retrain_assets import cli, runs
from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import partition_key
from retrain_assets.defs.regression_report import JSON_FILE as REPORT
from retrain_assets.evaluation.versions import Version
from retrain_assets.files import read_json, write_json
from retrain_assets.followups import Promote
from retrain_assets.home import Home
from retrain_assets.work import Retrain, Search
from retrain_assets_tests.finished import ran
from retrain_assets_tests.installed import MONTH, entered

Capsys = pytest.CaptureFixture[str]
FAMILIES = ("kronos", "toto")
JULY, AUGUST, SEPTEMBER = "2023-07", MONTH, "2023-09"
STOCK = "BBB"
"""What its July stopped training on, its August does not judge on: last month's takes part."""
BOTH = Retrain(
    families=FAMILIES,
    bases={"kronos": "tiny", "toto": "tiny"},
    max_steps=2,
    search=Search(
        grid={
            "num_samples": (2,),
            "temperature": (0.7, 1.0),
            "top_k": (None,),
            "top_p": (0.9,),
            "use_past_values": (False,),
        }
    ),
)
ASKED = (
    *("--base", "tiny", "--max-steps", "2", "--device", "cpu", "--grid", "num_samples=2"),
    *("temperature=.7,1.0", "top_k=off", "top_p=.9", "use_past_values=false"),
)
"""The same in the words of the command line."""


def run_month(home: Home, month: str) -> None:
    """Run the stock's month, with its summaries; July as a walk does, for the record alone."""
    work = replace(BOTH, live=month != JULY)
    (outcome,) = ran(home, STOCK, month=month, work=work).values()
    assert outcome.failures == []
    with dg.DagsterInstance.get() as instance:
        runs.summarise(build_definitions(home), instance, month, [outcome], BOTH)


@contextlib.contextmanager
def copied(home: Home, root: Path) -> Iterator[Home]:
    """A copy to go on with, which the environment points at meanwhile."""
    shutil.copytree(home.root, root)
    with pytest.MonkeyPatch.context() as patch:
        yield entered(root, patch)


def retrain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code of the command line, and what it printed, whatever the stream, on one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((out + err).split())


def materialized(
    home: Home, symbol: str, month: str, *names: str, job: str = "retrain_stock", **config: Any
) -> dg.ExecuteInProcessResult:
    """A run of some assets of one stock and month; config: by asset."""
    with dg.DagsterInstance.get() as instance:
        runs.register_stocks(instance, [symbol])
        return (
            build_definitions(home, device="cpu")
            .resolve_job_def(job)
            .execute_in_process(
                instance=instance,
                partition_key=partition_key(month, symbol),
                asset_selection=[dg.AssetKey(name) for name in names],
                run_config={"ops": {name: {"config": value} for name, value in config.items()}},
                raise_on_error=False,
            )
        )


def decided(home: Home, month: str = AUGUST, **how: Any) -> dict[str, Any]:
    """The stock's champion record of a month, decided anew; how: as of `Promote`."""
    (outcome,) = ran(home, STOCK, month=month, work=Promote(**how)).values()
    assert outcome.failures == []
    return dict(outcome.champion or {})


def summarised(home: Home, month: str = AUGUST) -> None:
    """The month's report and, if it is live, the export made anew."""
    with dg.DagsterInstance.get() as instance:
        runs.summarise(build_definitions(home), instance, month, [], Promote())


def version_of(record: dict[str, Any], family: str, what: str = "champion") -> Version:
    return Version.from_json(record["families"][family][what])


def champion(home: Home, month: str) -> dict[str, Any]:
    return read_json(home.assets / "champion" / month / f"{STOCK}.json")


def kept_file(home: Home, month: str) -> Path:
    """The file of a month's first decision."""
    (file,) = (home.production / STOCK / "decisions").glob(f"*_{month}.json")
    return file


def comparison_files(home: Home, month: str) -> tuple[Path, Path]:
    """The asset's record and the report's."""
    report = home.results / "comparison_results" / month / f"{STOCK}_comparison.json"
    return home.assets / "comparison" / month / f"{STOCK}.json", report


def comparison(home: Home, month: str) -> dict[str, Any]:
    return read_json(comparison_files(home, month)[0])


def plant_a_gain(home: Home, month: str, family: str = "kronos") -> None:
    """Let a family's candidate err half as much as naive wherever they were compared."""
    record = comparison(home, month)
    column = record["candidates"][family]["name"]
    for table in record["losses"].values():
        table[column] = [loss / 2 for loss in table["naive"]]
    for file in comparison_files(home, month):
        write_json(file, record)


def forget_last_month(home: Home, month: str, family: str = "kronos") -> dict[str, list[float]]:
    """Take last month's candidate out of a comparison; returns its losses by segment."""
    record, column = comparison(home, month), f"{family}.last_month"
    del record["last_month"][family]
    taken = {segment: table.pop(column) for segment, table in record["losses"].items()}
    for file in comparison_files(home, month):
        write_json(file, record)
    return taken


def aliases(home: Home, family: str = "kronos") -> dict[str, str]:
    """Ids of the versions that MLflow's aliases of a family are on."""
    client = mlflow.MlflowClient(f"sqlite:///{home.tracking / 'mlflow.db'}")
    name = f"{family}-{STOCK}"
    return {
        alias: client.get_model_version(name, number).tags["version"]
        for alias, number in client.get_registered_model(name).aliases.items()
    }


def contents(*roots: Path) -> dict[Path, bytes]:
    """Every file below some folders."""
    found = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in sorted(found)}


def in_place(home: Home) -> tuple[Any, ...]:
    """All that only a decision of the latest final month may move.

    The report on the month is left out of the export: it tells of a decision that failed.
    """
    live = (home.production / STOCK / "live.json").read_bytes()
    exported = contents(home.export)
    exported.pop(home.export / REPORT, None)
    return live, aliases(home, "kronos"), aliases(home, "toto"), exported
