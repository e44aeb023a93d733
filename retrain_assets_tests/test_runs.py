"""The whole pipeline from this process: real store, instance, MLflow and a tiny base."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import pandas as pd
import pytest

from retrain_assets import runs
from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import partition_key
from retrain_assets.errors import BadInput
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets.universe import Universe
from retrain_assets.work import Retrain
from retrain_assets_tests.finished import QUICK, Finished, ran
from retrain_assets_tests.installed import MONTH

BASELINES = {"naive", "drift", "auto_ets"}
CANDIDATES = BASELINES | {f"kronos.{variant}" for variant in ("zero_shot", "adapter", "chosen")}


def adapter(home: Home, symbol: str, month: str = MONTH) -> dict[str, Any]:
    return read_json(home.assets / "kronos_adapter" / month / f"{symbol}.json")


def test_one_stocks_failure_stops_no_other(finished: Finished) -> None:
    assert list(finished.outcomes) == ["AAA", "SHORT", "BBB"]
    assert "needs 316 bars, has 144" in (finished.outcomes["SHORT"].error or "")
    for symbol in ("AAA", "BBB"):
        assert finished.outcomes[symbol].error is None
        assert finished.outcomes[symbol].record is not None


def test_a_record_scores_every_candidate_at_both_horizons(finished: Finished) -> None:
    record = finished.outcomes["AAA"].record
    assert record == read_json(finished.home.assets / "comparison" / MONTH / "AAA.json")
    found = {(r["segment"], r["scope"], r["horizon"], r["candidate"]) for r in record["scores"]}
    expected = {("selection", "holdout", 7), ("test", "holdout", 7), ("test", "plan", 16)}
    assert found == {(*occasion, name) for occasion in expected for name in CANDIDATES}
    forecasts = pd.read_parquet(
        finished.home.results / "comparison_results" / MONTH / "AAA_forecasts.parquet"
    )
    cut = pd.Timestamp("2023-08-31")
    assert forecasts["ds"].max() == cut
    assert set(record["latency_s"]) == CANDIDATES


def test_the_summary_lists_what_succeeded_and_what_failed(finished: Finished) -> None:
    names = [file.name for file in finished.files]
    assert names == [
        "comparison_summary_h16.json",
        "hyperparameter_validation_results.json",
        "regression_analysis.json",
        "export",
        f"{MONTH}.html",
    ]
    file = finished.files[0]
    summary = json.loads(file.read_text())
    assert summary["month"] == MONTH
    assert set(summary["results"]) == {"AAA", "BBB", "SHORT"}
    assert "316 bars" in summary["results"]["SHORT"]["error"]
    assert summary["results"]["AAA"]["error"] is None


def test_adapters_follow_plan_and_overrides(finished: Finished) -> None:
    first, second = adapter(finished.home, "AAA"), adapter(finished.home, "BBB")
    assert first["plan"]["rank"] in (8, 12, 16)
    assert second["plan"]["rank"] == 4
    for record in (first, second):
        folder = finished.home.models / record["folder"]
        assert {"plan.json", "split.json", "metrics.json"} <= {f.name for f in folder.iterdir()}
        assert record["metrics"]["steps"] == 3


def test_nothing_half_written_is_left(finished: Finished) -> None:
    left = [p for p in finished.home.root.rglob("*") if p.name.endswith((".partial", ".training"))]
    assert left == []


def test_mlflow_and_dagster_link_to_each_other(finished: Finished) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished.home.tracking / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'kronos'")
    tracked = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["stock"] for run in tracked) == ["AAA", "BBB"]
    (run,) = [run for run in tracked if run.data.tags["stock"] == "AAA"]
    outcome = finished.outcomes["AAA"]
    assert run.data.tags["dagster.run_id"] == outcome.run_id
    assert run.data.params["plan.rank"] == str(adapter(finished.home, "AAA")["plan"]["rank"])
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train.loss")] == [1, 2, 3]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"adapter_model.safetensors", "plan.json"} <= artifacts
    with dg.DagsterInstance.get() as instance:
        assert instance.get_run_by_id(outcome.run_id).tags["mlflow/kronos"] == run.info.run_id


def test_the_instance_knows_every_partition_check_and_version(finished: Finished) -> None:
    with dg.DagsterInstance.get() as instance:
        assert set(instance.get_dynamic_partitions("stock")) == {"AAA", "BBB", "SHORT"}
        done = instance.get_materialized_partitions(dg.AssetKey("comparison"))
        assert done == {partition_key(MONTH, "AAA"), partition_key(MONTH, "BBB")}
        event = instance.get_latest_data_version_record(
            dg.AssetKey("market_bars"), partition_key=partition_key(MONTH, "AAA")
        )
        assert event is not None
        seen = BarStore(finished.home.market).read("AAA", until=pd.Timestamp("2023-08-31"))
        assert event.event_log_entry.asset_materialization.tags["dagster/data_version"] == (
            content_hash(seen)
        )
        checks = instance.all_logs(
            finished.outcomes["AAA"].run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        )
        passed = {e.dagster_event.event_specific_data.check_name for e in checks}
        assert passed == {"bars_are_valid", "adapter_reloads", "params_reproduce", "live_drift"}


def test_a_month_of_one_stock_is_summarised_too(finished: Finished, home: Home) -> None:
    for folder in ("assets", "models", "production"):
        shutil.copytree(finished.home.root / folder, home.root / folder)
    stale = home.results / "comparison_results" / MONTH / "comparison_summary_h64.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    with dg.DagsterInstance.get() as instance:
        runs.register_stocks(instance, ["AAA"])
        file, other, *_ = runs.summarise(build_definitions(home), instance, MONTH, [], QUICK)
    assert set(json.loads(file.read_text())["results"]) == {"AAA"}
    assert [entry["stock"] for entry in json.loads(other.read_text())] == ["AAA"]
    assert list(stale.parent.glob("comparison_summary_*.json")) == [file]


@pytest.mark.long
def test_the_universe_file_says_which_base_is_retrained(home: Home) -> None:
    text = home.universe.read_text(encoding="utf-8")
    home.universe.write_text(text + "bases: {kronos: tiny}\n", encoding="utf-8")
    ran(home, "AAA", work=Retrain(families=("kronos",), max_steps=1, search=None))
    record = read_json(home.assets / "kronos_adapter" / MONTH / "AAA.json")
    assert record["base"] == "tiny"


def test_a_warm_start_begins_with_the_previous_months_adapter(
    finished: Finished, home: Home
) -> None:
    shutil.copytree(finished.home.models, home.models)
    (outcome,) = ran(
        home, "AAA", month="2023-09", work=replace(QUICK, warm_start=True, search=None)
    ).values()
    assert outcome.error is None
    record = adapter(home, "AAA", "2023-09")
    assert record["metrics"]["warm_start"] == adapter(finished.home, "AAA")["folder"]


def unmeasured(value: Any) -> Any:
    """A record without what the clock, the calendar and chance put into it."""
    if isinstance(value, dict):
        skipped = {"measured", "latency_s", "latency_p95_s", "timestamp"}
        return {k: unmeasured(v) for k, v in value.items() if k not in skipped}
    return [unmeasured(v) for v in value] if isinstance(value, list) else value


def test_no_bar_after_the_cut_changes_anything(finished: Finished, home: Home) -> None:
    store = BarStore(home.market)
    bars = store.read("AAA").copy()
    later = bars["session"] > pd.Timestamp("2023-08-31")
    assert later.sum() > 3
    bars.loc[later, ["open", "high", "low", "close"]] *= np.linspace(2, 9, later.sum())[:, None]
    bars.loc[later, "volume"] = 0.0
    store.write("AAA", bars, source="corrupted")
    outcome = ran(home, "AAA")["AAA"]
    assert unmeasured(outcome.record) == unmeasured(finished.outcomes["AAA"].record)
    for asset in ("market_bars", "baseline_metrics", "kronos_adapter", "kronos_params"):
        path = Path(asset) / MONTH / "AAA.json"
        before, after = (read_json(h.assets / path) for h in (finished.home, home))
        assert unmeasured(after) == unmeasured(before), asset
    name = Path("comparison_results") / MONTH / "AAA_forecasts.parquet"
    forecasts = [pd.read_parquet(h.results / name) for h in (finished.home, home)]
    pd.testing.assert_frame_equal(*forecasts, check_exact=True)


def test_bars_that_cannot_be_right_stop_their_stock(home: Home) -> None:
    path = home.market / "AAA.parquet"
    table = pd.read_parquet(path)
    table.loc[5, "high"] = table.loc[5, "low"] / 2
    rewritten(path, table)
    error = ran(home, "AAA")["AAA"].error or ""
    assert error.startswith("check bars_are_valid:")
    assert "high" in error
    assert not (home.assets / "baseline_metrics").exists()


def rewritten(path: Path, bars: pd.DataFrame) -> None:
    """Replace a stored file behind the store's back, in the same Parquet schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    pq.write_table(pa.Table.from_pandas(bars, schema=schema, preserve_index=False), path)


def test_bars_that_change_between_stages_are_noticed(home: Home) -> None:
    defs = build_definitions(home, device="cpu")
    key = partition_key(MONTH, "AAA")
    job = defs.resolve_job_def("retrain_stock")
    with dg.DagsterInstance.get() as instance:
        runs.register_stocks(instance, ["AAA"])
        first = [dg.AssetKey("market_bars")]
        assert job.execute_in_process(
            instance=instance, partition_key=key, asset_selection=first
        ).success
        store = BarStore(home.market)
        bars = store.read("AAA").copy()
        bars.loc[0, "volume"] += 1
        store.write("AAA", bars, source="corrected")
        result = job.execute_in_process(
            instance=instance,
            partition_key=key,
            asset_selection=[dg.AssetKey("baseline_metrics")],
            raise_on_error=False,
        )
    reasons = runs.why_failed(result, ["baseline_metrics"])
    assert "have changed since market_bars saw them" in reasons["baseline_metrics"]


def test_an_mlflow_that_refuses_costs_the_stock_and_says_why(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "bogus://x")
    error = ran(home, "AAA")["AAA"].error or ""
    assert "MLflow at bogus://x refused" in error
    assert "unset MLFLOW_TRACKING_URI" in error
    assert not home.models.exists()


def test_a_broken_base_costs_the_stock_and_says_why(home: Home) -> None:
    weights = home.checkpoints / "kronos-tiny" / "model.safetensors"
    weights.unlink()
    assert str(weights) in (ran(home, "AAA")["AAA"].error or "")


def test_the_running_month_is_provisional(home: Home) -> None:
    universe, store = Universe.load(home.universe), BarStore(home.market)
    assert runs.last_complete_month(store, universe, ["AAA", "BBB"]) == MONTH
    record = ran(home, "SHORT", month="2023-09")["SHORT"]
    assert "needs 316 bars, has 150" in (record.error or "")
    view = read_json(home.assets / "market_bars" / "2023-09" / "SHORT.json")
    assert view["provisional"] is True
    assert view["cut"] == "2023-09-11"


def test_a_month_without_bars_is_told(home: Home) -> None:
    error = ran(home, "AAA", month="2016-02")["AAA"].error or ""
    assert "AAA has no bar in 2016-02; its bars begin" in error


def test_months_that_are_no_partition_are_refused(home: Home) -> None:
    universe = Universe.load(home.universe)
    assert runs.checked_month("2023-08", universe) == "2023-08"
    for month, message in {
        "2023-8": "malformed: write it as YYYY-MM",
        "2999-01": "lies in the future",
        "2014-12": "lies before 2015-01",
    }.items():
        with pytest.raises(BadInput, match=message):
            runs.checked_month(month, universe)
