"""MLflow away: the work goes on, what it logs waits on the disk, and is logged once and whole."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from retrain_assets.defs.outages import StoreAway
from retrain_assets.defs.outbox import Kept, Outbox
from retrain_assets.defs.resources import Production
from retrain_assets.defs.tracking import TrackedRun, Tracking
from retrain_assets.errors import CannotWrite, RetrainError
from retrain_assets.evaluation.versions import Version
from retrain_assets.home import Home
from retrain_assets.runs import Outcome
from retrain_assets_tests.finished import Finished, ran
from retrain_assets_tests.outage import Outage, contents, runs_of, tracking_of

TAGS = {"stock": "AAA", "month": "2023-08"}


@pytest.fixture
def tracking(home: Home) -> Tracking:
    return tracking_of(home)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


@pytest.fixture(autouse=True)
def same_drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drawings in SVG are the same to the byte."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    with mpl.rc_context({"svg.hashsalt": "same"}):
        yield


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "weights").mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    (folder / "weights" / "a.bin").write_bytes(b"\x00\x01")
    return folder


def stages(run: TrackedRun, adapter: Path) -> Iterator[None]:
    """A run's calls, one after the other."""
    yield run.log_params({f"p{n}": n for n in range(120)})
    yield run.log_metrics([(step, {"loss": 1 / step}) for step in range(1, 5)])
    yield run.log_metrics([(5, {"loss": float("nan"), "rate": 0.5}), (6, {"loss": 0.1})])
    yield run.log_folder(adapter)
    yield run.log_table(pd.DataFrame({"a": [1]}), "grid.csv")
    figure = Figure()
    figure.gca().plot([1, 2])
    yield run.log_figure(figure, "map.svg")


def whole(tracking: Tracking, adapter: Path, outage: Outage, *, at: int | None) -> str:
    """A run during which MLflow goes away at a stage; returns its id as it is told."""
    outage.away = at == 0
    with tracking.run("kronos", "2023-08|AAA", tags=TAGS) as run:
        for done, _ in enumerate(stages(run, adapter), start=1):
            outage.away = at is not None and done >= at
    return run.id


@pytest.mark.parametrize("at", [0, 2, 6])
def test_what_was_kept_is_logged_once_and_equals_an_undisturbed_run(
    tracking: Tracking, adapter: Path, outage: Outage, at: int
) -> None:
    expected = contents(tracking, whole(tracking, adapter, outage, at=None))
    told = whole(tracking, adapter, outage, at=at)
    assert len(tracking.outbox.entries()) == 1
    outage.over()
    tracking.client()
    tracking.client()
    assert not list(tracking.outbox.root.glob("[0-9]*"))
    runs = runs_of(tracking, "kronos")
    assert len(runs) == 2
    if at:  # one that had begun in MLflow is the same there
        assert told in runs
    assert [contents(tracking, run) for run in runs] == [expected, expected]


def test_after_the_first_call_nothing_waits_for_mlflow(
    tracking: Tracking, adapter: Path, outage: Outage
) -> None:
    with tracking.run("kronos", "x", tags=TAGS) as run:
        outage.away, outage.asked = True, 0
        list(stages(run, adapter))
    assert outage.asked == 1
    assert "not in MLflow yet" in str(run.shown().value)
    assert str(tracking.outbox.root) in str(run.shown().value)


def test_another_run_does_not_wait_for_it_either(
    tracking: Tracking, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage.away = True
    with tracking.run("kronos", "x", tags=TAGS):
        outage.asked = 0
    with tracking.run("kronos", "y", tags=TAGS) as run:
        assert (run.away, outage.asked) == (True, 0)
    monkeypatch.setattr("retrain_assets.defs.tracking._REST", 0.0)
    with tracking.run("kronos", "z", tags=TAGS):
        assert outage.asked == 1


def test_sending_that_is_cut_short_anywhere_goes_on(
    tracking: Tracking, adapter: Path, outage: Outage
) -> None:
    expected = contents(tracking, whole(tracking, adapter, outage, at=None))
    whole(tracking, adapter, outage, at=0)
    tries = 0
    while tracking.outbox.entries():
        # One answer more each time, so that every call is the last one once.
        outage.away, outage.answers = False, tries
        with contextlib.suppress(StoreAway):
            tracking.client()
        tries += 1
    assert tries > 8
    outage.over()
    assert [contents(tracking, run) for run in runs_of(tracking, "kronos")] == [expected, expected]


def test_times_are_those_of_the_work(
    tracking: Tracking, adapter: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain_assets.defs.outbox.now", lambda: 1_000)
    monkeypatch.setattr("retrain_assets.defs.tracking.now", lambda: 1_500)
    kept = Kept(tracking.store, "kronos", "x", TAGS, start=500)
    writer = tracking.outbox.begin(kept)
    writer.metrics([("loss", 0.5, 700, 1)])
    writer.close("FINISHED")
    client = tracking.client()
    (run,) = runs_of(tracking, "kronos")
    info = client.get_run(run).info
    assert (info.start_time, info.end_time) == (500, 1_000)
    assert [m.timestamp for m in client.get_metric_history(run, "loss")] == [700]


def test_a_run_that_failed_while_mlflow_was_away_is_logged_as_failed(
    tracking: Tracking, outage: Outage
) -> None:
    outage.away = True
    with pytest.raises(ValueError, match="diverged"), tracking.run("kronos", "x", tags={}):
        raise ValueError("diverged")
    outage.over()
    (run,) = runs_of(tracking, "kronos")
    assert tracking.client().get_run(run).info.status == "FAILED"


def killed_in_a_run(tracking: Tracking) -> str:
    """Begin a run in a process that is killed after two values; returns the id it went by."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        kept = Kept(tracking.store, "kronos", "x", dict(TAGS))
        entry = tracking.outbox.begin(kept)
        entry.params({"rank": "8"})
        entry.metrics([("loss", 0.5, 1, 1), ("loss", 0.4, 2, 2)])
        with (entry.folder / "metrics.jsonl").open("a") as torn:
            torn.write('["loss", 0.3,')
        os.write(writer, kept.id.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as told:
        return told.read()


def test_a_killed_training_goes_on_in_the_run_it_had_begun_offline(
    tracking: Tracking, outage: Outage
) -> None:
    noted = killed_in_a_run(tracking)
    outage.away = True
    with tracking.run("kronos", "x", tags={"device": "cpu"}, resume=noted) as again:
        again.log_metrics([(3, {"loss": 0.3})])
    assert again.id == noted
    outage.over()
    with tracking.run("kronos", "x", tags={}, resume=noted) as third:
        third.log_metrics([(4, {"loss": 0.2})])
    (run,) = runs_of(tracking, "kronos")
    assert run == third.id
    found = contents(tracking, run)
    assert found["metrics"] == {"loss": [(1, 0.5), (2, 0.4), (3, 0.3), (4, 0.2)]}
    assert found["params"] == {"rank": "8"}
    assert found["status"] == "FINISHED"
    assert found["tags"].items() >= {**TAGS, "device": "cpu"}.items()


def test_what_a_killed_writer_left_says_so(tracking: Tracking) -> None:
    killed_in_a_run(tracking)
    (run,) = runs_of(tracking, "kronos")
    assert tracking.client().get_run(run).info.status == "KILLED"


def test_what_is_still_being_written_is_not_sent(tracking: Tracking, outage: Outage) -> None:
    outage.away = True
    with tracking.run("kronos", "x", tags=TAGS) as run:
        outage.over()
        assert runs_of(tracking, "kronos") == []
        # Nor does a second part of it overtake the first.
        with tracking.run("kronos", "x", tags=TAGS, resume=run.id) as second:
            assert second.away
        assert runs_of(tracking, "kronos") == []
    assert len(runs_of(tracking, "kronos")) == 1


def test_only_one_process_sends_at_a_time(tracking: Tracking, outage: Outage) -> None:
    outage.away = True
    with tracking.run("kronos", "x", tags=TAGS):
        pass
    outage.over()
    # Another process, as far as a lock can tell: it has opened the file by itself.
    with Outbox(tracking.outbox.root).sending(seconds=0) as alone:
        assert alone
        with tracking.outbox.sending(seconds=0) as second:
            assert not second
    assert len(runs_of(tracking, "kronos")) == 1


def test_a_refused_entry_is_set_aside_and_stops_no_other(
    tracking: Tracking, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    with tracking.run("kronos", "refused", tags=TAGS) as run:
        run.log_params({"rank": 8})
        outage.away = True
        run.log_params({"rank": 16})  # MLflow takes one value
    with tracking.run("kronos", "fine", tags=TAGS):
        pass
    (tracking.outbox.begin(Kept(tracking.store, "kronos", "torn", TAGS))).close("FINISHED")
    (tracking.outbox.entries()[-1].folder / "run.json").write_text("{")
    outage.over()
    assert len(runs_of(tracking, "kronos")) == 2
    refused, torn = tracking.outbox.refused()
    assert "rank" in (refused / "reason.txt").read_text()
    assert "is not valid JSON" in (torn / "reason.txt").read_text()
    assert str(refused) in caplog.text
    assert not tracking.outbox.entries()


def test_a_change_of_a_parameter_is_refused_offline_as_well(
    tracking: Tracking, outage: Outage
) -> None:
    outage.away = True
    with (
        pytest.raises(RetrainError, match=r"'rank' of x is '8' and cannot become '16'"),
        tracking.run("kronos", "x", tags=TAGS) as run,
    ):
        [run.log_params({"rank": rank}) for rank in (8, 16)]


def test_what_is_for_another_store_waits_for_it(tracking: Tracking, outage: Outage) -> None:
    away = Tracking(uri="http://user:secret@127.0.0.1:9", artifacts=tracking.artifacts)
    writer = away.outbox.begin(Kept(away.store, "kronos", "x", TAGS))
    writer.close("FINISHED")
    assert runs_of(tracking, "kronos") == []
    (entry,) = tracking.outbox.entries()
    assert "secret" not in (entry.folder / "run.json").read_text()


def test_a_full_disk_is_an_error(
    tracking: Tracking, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    writer = tracking.outbox.begin(Kept(tracking.store, "kronos", "x", TAGS))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CannotWrite, match="make room"):
        writer.metrics([("loss", 0.5, 1, 1)])
    with pytest.raises(CannotWrite, match="make room"):
        writer.params({"rank": "8"})
    outage.away = True
    with pytest.raises(CannotWrite, match="make room"), tracking.run("kronos", "y", tags={}):
        pytest.fail("there is no place for what it would log")


def test_dagsters_tag_follows(tracking: Tracking, outage: Outage) -> None:
    """The asset's page says that MLflow lacks the run, its log warns, and the tag is set later."""

    @dg.asset
    def adapter(context: dg.AssetExecutionContext) -> dg.Output[int]:
        with tracking.run("kronos", "x", tags=TAGS) as run:
            run.link(context, "kronos")
        return dg.Output(1, metadata={"mlflow": run.shown()})

    with dg.DagsterInstance.get() as instance:
        outage.away = True
        result = dg.materialize([adapter], instance=instance)
        logged = [entry.user_message for entry in instance.all_logs(result.run_id)]
        assert any("database is locked. The work goes on" in line for line in logged)
        (made,) = result.asset_materializations_for_node("adapter")
        assert "not in MLflow yet" in str(made.metadata["mlflow"].value)
        told = instance.get_run_by_id(result.run_id)
        assert told is not None
        assert told.tags["mlflow/kronos"].startswith("kept-")
        outage.over()
        (run,) = runs_of(tracking, "kronos")
        told = instance.get_run_by_id(result.run_id)
        assert told is not None
        assert told.tags["mlflow/kronos"] == run


def test_the_files_are_as_they_are_described(
    tracking: Tracking, adapter: Path, outage: Outage
) -> None:
    whole(tracking, adapter, outage, at=0)
    (entry,) = tracking.outbox.entries()
    run = json.loads((entry.folder / "run.json").read_text())
    assert run["store"] == "sqlite:///mlflow.db"  # so that the data folder may move
    assert run["experiment"] == "kronos"
    assert run["status"] == "FINISHED"
    assert run["params"]["p7"] == "7"
    first = json.loads((entry.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert (first[0], first[1], first[3]) == ("loss", 1.0, 1)
    assert [folder.name for folder in entry.artifacts()] == ["000", "001", "002"]


@pytest.fixture
def ran_away(home: Home, tracking: Tracking, outage: Outage) -> tuple[Outcome, str]:
    """A stock's whole run while MLflow was away; its outcome and what its page says of MLflow."""
    outage.away = True
    (outcome,) = ran(home, "AAA").values()
    with dg.DagsterInstance.get() as instance:
        made = [
            instance.get_latest_materialization_event(dg.AssetKey(name))
            for name in ("kronos_adapter", "kronos_params", "champion")
        ]
    shown = [
        one.asset_materialization.metadata for one in made if one and one.asset_materialization
    ]
    assert ["not in MLflow yet" in str(page["mlflow"].value) for page in shown] == [True] * 3
    outage.over()
    return outcome, str(shown[-1]["model registry"].value)


@pytest.mark.long
def test_a_stock_runs_through_without_mlflow_and_is_logged_later(
    home: Home, tracking: Tracking, ran_away: tuple[Outcome, str], finished_once: Finished
) -> None:
    outcome, registry = ran_away
    undisturbed = finished_once.outcomes["AAA"]
    assert outcome.failures == []
    assert outcome.record is not None
    assert undisturbed.record is not None
    assert outcome.record["losses"] == undisturbed.record["losses"]
    assert "lags behind" in registry
    live = Production(root=str(home.production)).store().live("AAA")
    assert live is not None  # the decision stands

    theirs = tracking_of(finished_once.home)
    for experiment in ("kronos", "kronos_params", "promotion"):
        (late,) = runs_of(tracking, experiment)
        there = [contents(theirs, run) for run in runs_of(theirs, experiment)]
        (expected,) = [known for known in there if known["tags"]["stock"] == "AAA"]
        found = contents(tracking, late)
        assert (found["name"], found["status"]) == (expected["name"], expected["status"])
        assert found["params"] == expected["params"]
        assert found["tags"].keys() == expected["tags"].keys()
        assert found["metrics"].keys() == expected["metrics"].keys()
        assert found["files"].keys() == expected["files"].keys()
    for family, state in live["families"].items():
        version = tracking.client().get_model_version_by_alias(f"{family}-AAA", "champion")
        assert version.tags["version"] == Version.from_json(state["champion"]).id
    assert tracking.outbox.lagging(tracking.store) == {}
