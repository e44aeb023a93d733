"""What `retrain prune` deletes, and what it never does."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from retrain_assets import retention
from retrain_assets.commands import prune
from retrain_assets.defs.partitions import month_stock, partition_key, register_stocks
from retrain_assets.defs.requests import BARS_TAG, FINAL_TAG
from retrain_assets.defs.resources import build_resources
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import NAIVE_VERSION, Version
from retrain_assets.export.tree import export_tree
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.live import load_forecaster
from retrain_assets.operation import Retention
from retrain_assets.retention_runs import RunHistory, TrackedHistory
from retrain_assets_tests.installed import MONTH
from retrain_assets_tests.ports import free_port
from retrain_assets_tests.promoted import bars_of, promote, trained

CHAMPION, REJECTED = "2021-03", "2021-04"  # two months older than 24 before MONTH
KEEP = Retention(run_days=180, months=24)
LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
MUCH_LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=200)
AS_OF = "2023-09-12"
SUPERSEDED = "0123456789abcdef"


@pytest.fixture
def aged(searched: Home) -> Home:
    """AAA has in production an adapter of long ago, and a month of long ago that came to nothing.

    Of the last month there is an adapter whose place another has taken.
    """
    home = searched
    old = trained(home, month=CHAMPION)
    for folder in (home.models / "kronos", home.results / "comparison_results"):
        copied(folder / MONTH, folder / REJECTED)
    for asset in ("kronos_adapter", "kronos_params", "comparison"):
        copied(home.assets / asset / MONTH, home.assets / asset / REJECTED)
    for kind in ("regression", "validation_results", "live"):
        copied(home.results / kind / MONTH, home.results / kind / REJECTED)
    rejected = Version(
        "kronos", month=REJECTED, adapter=latest(home, REJECTED), fingerprint=old.fingerprint
    )
    decided(home, CHAMPION, champion=old, candidate=old)
    decided(home, REJECTED, champion=old, candidate=rejected)
    promote(home, "AAA", old, old)
    here = home.models / "kronos" / MONTH / "AAA"
    shutil.copytree(here / Path(latest(home, MONTH)["folder"]).name, here / SUPERSEDED)
    return home


def copied(source: Path, target: Path) -> None:
    """A copy of one month's files as those of another."""
    shutil.copytree(source, target)
    for file in target.rglob("*.json"):
        file.write_text(file.read_text().replace(MONTH, target.name))


def latest(home: Home, month: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(home.models / "kronos" / month / "AAA" / "latest.json")
    return found


def decided(home: Home, month: str, *, champion: Version, candidate: Version) -> None:
    record = promote(home, "AAA", NAIVE_VERSION, champion)
    state = record["families"]["kronos"] | {"candidate": candidate.to_json()}
    ProductionStore(home.production).keep(
        record | {"month": month, "live": False, "families": {"kronos": state}}
    )


def pruned(home: Home, *, apply: bool, now: dt.datetime = LATER) -> prune.Pruned:
    with dg.DagsterInstance.get() as instance:
        tracked = TrackedHistory(build_resources(home)["tracking"])
        return prune.pruned(home, KEEP, RunHistory(instance), tracked, now=now, apply=apply)


def named(found: prune.Pruned, home: Home) -> set[str]:
    return {str(one.path.relative_to(home.root)) for one in found.files}


def contents(home: Home) -> dict[str, bytes]:
    """Bytes of all files, but for the locks and databases that merely looking may touch."""
    apart = {home.dagster, home.tracking, home.root / "locks"}
    files = [path for path in home.root.rglob("*") if path.is_file()]
    return {
        str(file.relative_to(home.root)): file.read_bytes()
        for file in files
        if not apart & set(file.parents) and file.suffix != ".lock"
    }


def test_an_old_champion_survives_and_what_came_to_nothing_goes(aged: Home) -> None:
    before = contents(aged)
    found = pruned(aged, apply=False)
    gone = named(found, aged)
    assert contents(aged) == before
    assert found.kept == {}
    assert {name for name in gone if name.startswith("models")} == {
        f"models/kronos/{REJECTED}/AAA",
        f"models/kronos/{REJECTED}/BBB",
        f"models/kronos/{MONTH}/AAA/{SUPERSEDED}",
    }
    assert {name for name in gone if name.startswith("assets")} == {
        f"assets/{asset}/{REJECTED}/{symbol}.json"
        for asset in ("kronos_adapter", "kronos_params")
        for symbol in ("AAA", "BBB")
    }
    assert {f"results/regression/{REJECTED}", f"results/live/{REJECTED}/AAA.json"} <= gone
    assert not [name for name in gone if name.startswith(("production", "export"))]
    assert all(one.size > 0 and one.reason for one in found.files)
    left = {name for name in before if not within(name, gone)}
    pruned(aged, apply=True)
    assert contents(aged) == {name: before[name] for name in left}
    assert named(pruned(aged, apply=False), aged) == set()
    # What is in production is whole.
    assert (
        load_forecaster("AAA", home=aged.root).predict(bars_of(aged), 3, as_of=AS_OF).shape[0] == 3
    )
    export_tree(aged.export, home=aged)
    assert list((aged.export / "hyperparams" / "kronos").glob("AAA.json"))


def within(name: str, gone: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in gone)


def test_without_a_champion_of_its_own_the_old_month_goes_whole(aged: Home) -> None:
    promote(aged, "AAA", NAIVE_VERSION)
    shutil.rmtree(aged.production / "AAA" / "decisions")
    assert f"models/kronos/{CHAMPION}/AAA" in named(pruned(aged, apply=False), aged)


def test_what_an_old_decision_can_put_back_stays(aged: Home) -> None:
    promote(aged, "AAA", NAIVE_VERSION)  # only the decisions name the old champion by now
    found = named(pruned(aged, apply=True), aged)
    assert f"models/kronos/{CHAMPION}/AAA" not in found
    state = ProductionStore(aged.production).state_of("AAA", CHAMPION)
    folder = state["families"]["kronos"]["champion"]["adapter"]["folder"]
    assert (aged.models / folder / "adapter_model.safetensors").is_file()


def test_a_record_that_cannot_be_read_keeps_everything_of_its_stock(aged: Home) -> None:
    file = next((aged.production / "AAA" / "decisions").glob("*.json"))
    file.write_text("{")
    before = contents(aged)
    found = pruned(aged, apply=True)
    assert "not valid JSON" in found.kept["AAA"]
    gone = before.keys() - contents(aged).keys()
    assert gone
    assert all("/BBB" in name for name in gone)  # not the months' summaries either


def test_a_stock_with_a_run_under_way_is_left_alone(aged: Home) -> None:
    with dg.DagsterInstance.get() as instance:
        create_run_for_test(
            instance,
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": partition_key(REJECTED, "AAA")},
        )
    found = pruned(aged, apply=False)
    assert found.kept == {"AAA": "a run of it waits or is under way"}
    assert not [name for name in named(found, aged) if "BBB" not in name]


def test_what_is_fresh_is_not_superseded(aged: Home) -> None:
    found = pruned(aged, apply=False, now=dt.datetime.now(dt.UTC))
    assert f"models/kronos/{MONTH}/AAA/{SUPERSEDED}" not in named(found, aged)


def test_a_prune_that_was_killed_is_finished_by_the_next(
    aged: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, gone = contents(aged), named(pruned(aged, apply=False), aged)

    def killed(path: Path) -> None:
        next(file for file in sorted(path.rglob("*")) if file.is_file()).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            pruned(aged, apply=True)
    left = contents(aged)
    visible = {name for name in left if retention.TRASH not in Path(name).parts}
    assert left.keys() - visible
    assert not [name for name in visible if within(name, gone)]
    pruned(aged, apply=True)
    assert contents(aged) == {n: b for n, b in before.items() if not within(n, gone)}


def test_what_is_deleted_is_renamed_first_each_in_one_step(
    aged: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed, rename = list[Path](), Path.rename

    def noted(path: Path, to: Path) -> Path:
        if len(renamed) == 2:
            raise KeyboardInterrupt
        renamed.append(path)
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", noted)
        with pytest.raises(KeyboardInterrupt):
            pruned(aged, apply=True)
    # The records went, and the adapter they name is still whole.
    assert {path.parents[1].name for path in renamed} == {"kronos_adapter", "kronos_params"}
    assert f"models/kronos/{REJECTED}/AAA" in named(pruned(aged, apply=True), aged)
    assert not list(aged.root.glob("*/.trash"))


def test_files_go_by_their_age(home: Home) -> None:
    old, recent = MUCH_LATER - dt.timedelta(days=800), MUCH_LATER - dt.timedelta(days=1)
    ages = {
        "market/.history/AAA.000000000001.parquet": old,
        "market/.history/AAA.000000000002.parquet": old + dt.timedelta(days=1),
        "market/.history/BBB.000000000003.parquet": old,
        "inbox/imported/old.csv": old,
        "inbox/imported/recent.csv": recent,
        "inbox/quarantine/old.csv": old,
        "inbox/waiting.csv": old,
        "mlflow/outbox/old.json": old,
        "results/.summary.json.0123456789ab.partial": old,
        "results/.summary.json.ba9876543210.partial": MUCH_LATER,
        "models/kronos/2023-08/AAA/.0123456789abcdef.training/000001/state.json": old,
        "models/kronos/2023-08/AAA/.fedcba9876543210.training/000001/state.json": recent,
        "models/someone/2011-01/AAA/0123456789abcdef/record.json": old,
    }
    for name, moment in ages.items():
        file = home.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        for path in (file, file.parent, file.parents[1]):
            os.utime(path, (moment.timestamp(), moment.timestamp()))
    assert named(pruned(home, apply=False, now=MUCH_LATER), home) == {
        "market/.history/AAA.000000000001.parquet",
        "inbox/imported/old.csv",
        "results/.summary.json.0123456789ab.partial",
        "models/kronos/2023-08/AAA/.0123456789abcdef.training",
    }


@dg.asset(partitions_def=month_stock)
def market_bars() -> None:
    """Stands for the first asset."""


@dg.asset(partitions_def=month_stock, deps=[market_bars])
def comparison() -> None:
    """Stands for the last; fails when it is told to."""
    if "fail" in dg.AssetExecutionContext.get().run.tags:
        raise ValueError("told to")


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        register_stocks(opened, ["AAA", "BBB"])
        yield opened


def made(instance: dg.DagsterInstance, *selected: Any, stock: str = "AAA", **tags: str) -> str:
    key = partition_key(MONTH, stock)
    result = dg.materialize(
        [market_bars, comparison],
        selection=list(selected),
        partition_key=key,
        instance=instance,
        tags=tags,
        raise_on_error=False,
    )
    return str(result.run_id)


def test_runs_go_but_for_those_that_something_rests_on(
    home: Home, instance: dg.DagsterInstance
) -> None:
    remade = made(instance, market_bars, comparison)
    failed_once = made(instance, comparison, fail="1")
    only_comparison = made(instance, comparison)
    only_bars = made(instance, market_bars)
    remembered = made(instance, market_bars, **{BARS_TAG: "abc", FINAL_TAG: MONTH})
    last = made(instance, market_bars)
    failed_last = made(instance, comparison, stock="BBB", fail="1")
    unfinished = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED).run_id
    assert pruned(home, apply=False, now=LATER).runs == []
    found = pruned(home, apply=True, now=MUCH_LATER)
    assert {run.id for run in found.runs} == {remade, failed_once, only_bars}
    assert all(run.size > 0 for run in found.runs)
    left = {run.run_id for run in instance.get_runs()}
    assert left == {only_comparison, remembered, last, failed_last, unfinished}
    for run_id in (remade, failed_once, only_bars):
        assert not [p for p in home.dagster.rglob("*") if run_id in p.name]
    for asset, maker in (("market_bars", last), ("comparison", only_comparison)):
        wanted = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition_key(MONTH, "AAA")]
        )
        (record,) = instance.fetch_materializations(wanted, limit=1).records
        assert record.run_id == maker
    assert [p for p in home.dagster.rglob("*") if last in p.name]


def test_mlflow_may_be_away(aged: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    found = pruned(aged, apply=True)
    assert "does not answer" in found.kept["MLflow"]
    assert f"models/kronos/{REJECTED}/AAA" in named(found, aged)


@pytest.mark.long
def test_runs_of_mlflow_go_with_what_they_were_about(aged: Home) -> None:
    tracking = build_resources(aged)["tracking"]
    runs = {}
    for month in (CHAMPION, REJECTED):
        tags = {"month": month, "stock": "AAA"}
        with tracking.run("kronos", f"{month}|AAA", tags=tags) as run:
            run.client.log_text(run.id, "weights", "adapter/weights.txt")
            runs[month] = run
    # An earlier prune was killed when it had deleted, and freed nothing yet.
    with tracking.run("kronos_params", "x", tags={"month": REJECTED, "stock": "AAA"}) as half:
        pass
    client = tracking.client()
    uris = [client.get_run(run.id).info.artifact_uri for run in runs.values()]
    folders = [Path(uri.removeprefix("file://")) / "adapter" for uri in uris]
    assert [folder.is_dir() for folder in folders] == [True, True]
    client.delete_run(half.id)
    found = pruned(aged, apply=True)
    assert {run.id for run in found.tracked} == {runs[REJECTED].id, half.id}
    assert client.get_run(runs[CHAMPION].id).info.lifecycle_stage == "active"
    assert [folder.exists() for folder in folders] == [True, False]
    assert pruned(aged, apply=False).tracked == []


def test_the_command_shows_first_and_answers_in_json(
    aged: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(aged.root / "told.json", {})
    from retrain_assets import cli

    def told(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["prune", *arguments])
        assert ended.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    text = told()
    assert f"models/kronos/{REJECTED}/AAA (" in text
    assert "before 2021-09, and nothing in production needs it" in text
    assert "would go; `retrain prune --apply` deletes it" in text
    answer = json.loads(told("--json"))
    assert answer["applied"] is False
    assert answer["bytes"] == sum(one["bytes"] for one in answer["files"])
    assert (aged.models / "kronos" / REJECTED / "AAA").is_dir()
    told("--apply")
    assert not (aged.models / "kronos" / REJECTED / "AAA").exists()
