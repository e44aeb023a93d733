"""Searching parameters: what a run keeps of it, validating stored adapters, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest

from retrain_assets import runs
from retrain_assets.definitions import build_definitions
from retrain_assets.defs.partitions import partition_key
from retrain_assets.defs.sparks import INLINE
from retrain_assets.errors import BadInput
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.work import Search, Validation
from retrain_assets_tests.finished import QUICK, SMALL, Finished, ran
from retrain_assets_tests.installed import MONTH

VALIDATION = Validation(families=("kronos",), search=SMALL)
SUMMARY = Path("validation_results") / MONTH / "hyperparameter_validation_results.json"


def params(home: Home, symbol: str) -> dict[str, Any]:
    return read_json(home.assets / "kronos_params" / MONTH / f"{symbol}.json")


def summary(home: Home) -> dict[str, dict[str, Any]]:
    """Entries of the month's file by stock."""
    return {entry["stock"]: entry["kronos"] for entry in read_json(home.results / SUMMARY)}


def validated(home: Home, *symbols: str, work: Validation = VALIDATION) -> dict[str, runs.Outcome]:
    """Outcomes by symbol, after which the month's file has been written."""
    outcomes = ran(home, *symbols, work=work)
    with dg.DagsterInstance.get() as instance:
        defs = build_definitions(home, device="cpu")
        runs.summarise(defs, instance, MONTH, list(outcomes.values()), work)
    return outcomes


def test_a_run_keeps_what_was_chosen(finished: Finished) -> None:
    record = params(finished.home, "AAA")
    assert finished.outcomes["AAA"].params == {"kronos": record}
    assert set(record["chosen"]) == {"num_samples", "temperature", "top_k", "top_p"}
    assert (record["summary"]["settings"], record["summary"]["groups"]) == (16, 8)
    folder = finished.home.models / "kronos" / MONTH / "AAA" / "params"
    (search,) = folder.iterdir()
    assert {f.name for f in search.iterdir()} == {"params.json", "grid.parquet", "losses.parquet"}
    assert read_json(search / "params.json") == record


def test_the_months_file_has_the_guides_shape(finished: Finished) -> None:
    entries = summary(finished.home)
    assert list(entries) == ["AAA", "BBB", "SHORT"]
    assert entries["SHORT"]["status"] == "failed"
    assert "316 bars" in entries["SHORT"]["error"]
    found, record = entries["AAA"], params(finished.home, "AAA")
    assert found["status"] == "success"
    mae = found["best_params"].pop("mae")
    assert mae == found["best_mae"] == record["summary"]["test"]["chosen"]["mae"]
    assert found["best_params"].pop("mae_pct") == found["best_mae_pct"]
    assert found["best_params"] == record["chosen"]


def test_mlflow_has_one_run_a_search(finished: Finished) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{finished.home.tracking / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'kronos_params'")
    tracked = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["stock"] for run in tracked) == ["AAA", "BBB"]
    (run,) = [run for run in tracked if run.data.tags["stock"] == "AAA"]
    record = params(finished.home, "AAA")
    assert run.data.params["best.temperature"] == str(record["chosen"]["temperature"])
    assert run.data.params["grid.top_k"] == "[3, None]"
    assert run.data.params["split.holdout_days"] == "7"
    assert run.data.metrics["test.chosen.mae"] == record["summary"]["test"]["chosen"]["mae"]
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"grid.csv", "grid.parquet", "params.json", "error_map.svg"} <= artifacts
    with dg.DagsterInstance.get() as instance:
        tags = instance.get_run_by_id(finished.outcomes["AAA"].run_id).tags
    assert tags["mlflow/kronos_params"] == run.info.run_id


def test_the_page_of_a_search_shows_map_scores_and_table(finished: Finished) -> None:
    with dg.DagsterInstance.get() as instance:
        key = dg.AssetKey("kronos_params")
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[partition_key(MONTH, "AAA")])
        (record,) = instance.fetch_materializations(wanted, limit=1).records
    shown = record.asset_materialization.metadata
    assert "data:image/svg+xml" in shown["error map"].value
    assert "data:image/svg+xml" in shown["errors"].value
    assert len(shown["errors"].value) < INLINE
    found = params(finished.home, "AAA")["summary"]
    for name, value in (
        ("test MAE % of chosen", found["test"]["chosen"]["mae_pct"]),
        ("shrinkage, points", found["shrinkage_pct"]),
    ):
        assert shown[name].value == pytest.approx(value, rel=5e-4)  # four digits
    rows = [row.data for row in shown["best rows"].records]
    assert [row["mae"] for row in rows[:2]] == sorted(row["mae"] for row in rows[:2])


def test_validation_searches_stored_adapters_at_other_lengths(
    searched: Home, finished_once: Finished
) -> None:
    adapter = read_json(searched.assets / "kronos_adapter" / MONTH / "AAA.json")
    search = replace(
        SMALL, holdout_days=5, subset=3, options={"compat": "upstream"}, exhaustive=True
    )
    outcomes = validated(searched, "AAA", "SHORT", work=replace(VALIDATION, search=search))
    assert outcomes["AAA"].failures == []
    record = outcomes["AAA"].params["kronos"]
    assert record["split"]["holdout_days"] == 5
    assert record["options"] == {"compat": "upstream"}
    assert record["summary"]["racing"] is None
    assert record["summary"]["settings"] == 3
    assert record["adapter"] == adapter["digest"]
    assert read_json(searched.assets / "kronos_adapter" / MONTH / "AAA.json") == adapter
    (reason,) = outcomes["SHORT"].failures
    assert f"no kronos adapter of SHORT {MONTH}: train one with" in reason
    assert f"`retrain run --stocks SHORT --month {MONTH}`" in reason
    entries = summary(searched)
    assert entries["AAA"]["holdout_days"] == 5
    assert entries["SHORT"]["error"] in reason
    assert entries["BBB"] == summary(finished_once.home)["BBB"]


def test_a_test_that_leaves_too_little_to_choose_on_is_refused(searched: Home) -> None:
    before = params(searched, "AAA")
    search = replace(SMALL, holdout_days=17, prediction_length=16)
    (reason,) = ran(searched, "AAA", work=replace(VALIDATION, search=search))["AAA"].failures
    assert "holdout_days is 17 and prediction_length 16: 7 selection origins are left" in reason
    assert "a new adapter for these lengths needs 406 bars" in reason
    assert params(searched, "AAA") == before


CHANGED = {
    "adapter": "0" * 64,
    "fingerprint": "1" * 64,
    "bars_hash": "2" * 64,
}


@pytest.mark.parametrize("name", CHANGED)
def test_params_of_something_else_are_refused(searched: Home, name: str) -> None:
    change(searched, **{name: CHANGED[name]})
    reason = checked(searched)
    assert f"have {name} {CHANGED[name][:12]}" in reason
    with dg.DagsterInstance.get() as instance:
        runs.summarise(build_definitions(searched), instance, MONTH, [], VALIDATION)
    entries = summary(searched)
    assert entries["AAA"] == {"status": "failed", "error": reason.split(": ", 1)[1]}
    assert entries["BBB"]["status"] == "success"


def test_a_score_that_does_not_come_again_fails_the_check(searched: Home) -> None:
    before = params(searched, "AAA")["summary"]
    change(searched, summary=before | {"selection_mae": before["selection_mae"] * (1 + 1e-12)})
    assert "on the selection origins when they were chosen" in checked(searched)


def test_files_that_are_not_the_records_fail_the_check(searched: Home) -> None:
    path = searched.assets / "kronos_params" / MONTH / "AAA.json"
    write_json(path, read_json(path) | {"seed": 5})
    assert "are not those of the record" in checked(searched)


def change(home: Home, **values: Any) -> None:
    """Write other values into a stored search, in the asset's record and in its folder."""
    record = params(home, "AAA") | values
    write_json(home.assets / "kronos_params" / MONTH / "AAA.json", record)
    folder = home.models / "kronos" / MONTH / "AAA" / "params" / record["digest"][:16]
    write_json(folder / "params.json", record)


def checked(home: Home) -> str:
    """Why the check alone fails for what is stored."""
    defs = build_definitions(home, device="cpu")
    check = dg.AssetCheckKey(dg.AssetKey("kronos_params"), "params_reproduce")
    job = defs.resolve_job_def("search_params")
    job = job.get_subset(asset_selection=set(), asset_check_selection={check})
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=partition_key(MONTH, "AAA"), raise_on_error=False
        )
    (reason,) = runs.why_failed(result, ["kronos_params"]).values()
    assert reason.startswith("check params_reproduce: ")
    return reason


def test_a_search_that_fails_stops_what_would_use_its_choice(home: Home) -> None:
    hot = replace(QUICK, search=Search(grid={"temperature": (-1.0,)}))
    outcome = ran(home, "AAA", work=hot)["AAA"]
    assert outcome.record is None
    assert outcome.error is None
    (reason,) = outcome.failures
    assert reason.startswith("kronos_params: Kronos setting 'temperature' must be a number above 0")


@pytest.mark.long
def test_a_comparison_that_fails_leaves_the_search(home: Home) -> None:
    home.results.mkdir()
    (home.results / "comparison_results").write_text("in the way")
    outcome = ran(home, "AAA")["AAA"]
    assert outcome.record is None
    assert "comparison_results" in (outcome.error or "")
    assert outcome.params["kronos"] == params(home, "AAA")


def test_a_search_says_what_is_not_usual_about_it() -> None:
    assert Search().told() == ""
    search = Search(grid={"top_k": (20, None), "temperature": (0.6, 1)}, subset=3, exhaustive=True)
    assert search.told() == "grid top_k 20/off, temperature 0.6/1; 3 settings at random; exhaustive"


def test_a_setting_that_no_family_has_is_refused() -> None:
    with pytest.raises(BadInput, match="no setting 'heat' to search: use"):
        Search(grid={"heat": (1,)}).check(["kronos"])


def test_a_value_out_of_range_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(BadInput, match="'temperature' must be a number above 0"):
        Search(grid={"temperature": (0.6, -1)}).check(["kronos"])


def test_the_summary_of_nothing_is_a_report_that_says_so(home: Home) -> None:
    home.results.joinpath(SUMMARY).parent.mkdir(parents=True)
    write_json(home.results / SUMMARY, [])
    with dg.DagsterInstance.get() as instance:
        (file,) = runs.summarise(build_definitions(home), instance, MONTH, [], VALIDATION)
    assert file.suffix == ".html"
    assert not (home.results / SUMMARY).exists()
