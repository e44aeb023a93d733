"""The command line: what it prints, which code it ends with, and how it refuses bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from retrain_assets.commands import options
from retrain_assets.errors import BadInput
from retrain_assets.home import Home
from retrain_assets.models.forecaster import families
from retrain_assets_tests.calls import GRID, QUICK, answer, retrain
from retrain_assets_tests.installed import MONTH, made_bars

__all__ = ["answer", "retrain"]


def test_several_values_may_follow_one_flag() -> None:
    spread = ["run", "--stocks", "A", "--stocks", "B", "--month", "2023-08"]
    assert options.spread_lists(["run", "--stocks", "A", "B", "--month", "2023-08"]) == spread
    assert options.spread_lists(["run", "--stocks", "A,B", "--month", "2023-08"]) == spread
    assert options.spread_lists(["run", "--stocks=A", "B", "--month", "2023-08"]) == spread
    assert options.spread_lists(spread) == spread
    files = ["import", "a.csv", "b.csv", "--symbol", "SPY"]
    assert options.spread_lists(files) == files
    for empty in (["--stocks", ""], ["--stocks="], ["--grid="]):
        with pytest.raises(BadInput, match="is given an empty value"):
            options.spread_lists(["validate", *empty])
    grid = ["--grid", "top_k=20,off", "--grid", "top_p=.9", "--stocks", "A"]
    assert options.spread_lists(["--grid", "top_k=20,off", "top_p=.9", "--stocks", "A"]) == grid
    for arguments in (["--grid", "--seed", "1"], ["--stocks"]):
        with pytest.raises(BadInput, match=f"{arguments[0]} is given without a value"):
            options.spread_lists(arguments)


def test_a_grid_is_read_as_numbers_truth_and_off() -> None:
    texts = ["top_k=20,off", "temperature=.5,1,1e1", "use_past=true,False", "top_p=None"]
    grid = options.read_grid(texts)
    assert grid == {
        "top_k": [20, None],
        "temperature": [0.5, 1, 10.0],
        "use_past": [True, False],
        "top_p": [None],
    }
    assert [type(value) for value in grid["temperature"]] == [float, int, float]


def test_bases_are_read_for_all_families_or_for_each() -> None:
    both = ("kronos", "other")
    assert options.read_bases(None, both) == {}
    assert options.read_bases("nano", both) == {"kronos": "nano", "other": "nano"}
    assert options.read_bases("kronos=small", both) == {"kronos": "small"}
    assert options.read_bases("other=22m, kronos=small", both) == {
        "other": "22m",
        "kronos": "small",
    }
    for bad in ("third=small", "kronos=", "kronos=small,kronos=mini", "kronos=small,mini"):
        with pytest.raises(BadInput, match="such as kronos=nano,other=nano"):
            options.read_bases(bad, both)


def test_a_run_shows_progress_a_table_and_where_to_look(home: Home, retrain: Any) -> None:
    told = retrain("run", "--stocks", "aaa.us", "SHORT", "--month", MONTH, *QUICK, *GRID)
    assert told.code == 1
    assert "AAA kronos_adapter: epoch 1/" in told
    assert "AAA done, winner:" in told
    for heading in ("stock", "diffi-", "naive", "zero-", "adapter", "chosen", "skill", "latency"):
        assert heading in told
    assert (
        "1 of 2 stocks failed: SHORT: a prediction length of 16 and 7 holdout days needs 316"
        in told
    )
    file = home.results / "comparison_results" / MONTH / "comparison_summary_h16.json"
    assert f"Results: {file}" in told
    assert set(json.loads(file.read_text())["results"]) == {"AAA", "SHORT"}
    assert "retrain ui" in told
    assert "retrain mlflow" in told
    assert "Traceback" not in told
    assert "Parameters chosen for 7 sessions ahead (num_samples/temperature/top_k/top_p)" in told
    chosen = home.results / "validation_results" / MONTH / "hyperparameter_validation_results.json"
    assert f"Results: {chosen}" in told
    status = {entry["stock"]: entry["kronos"]["status"] for entry in json.loads(chosen.read_text())}
    assert status == {"AAA": "success", "SHORT": "failed"}


@pytest.mark.long
def test_a_group_reports_what_has_no_bars_and_goes_on(home: Home, retrain: Any) -> None:
    (home.market / "AAA.parquet").unlink()
    shutil.copy(home.market / "SHORT.parquet", home.market / "AAA.parquet")
    told = retrain("run", "--priority", "--no-progress", *QUICK)
    assert "No bars, left out: NONE" in told
    assert f"month {MONTH}" in told  # the last one complete: the bars end in September
    assert "1 of 1 stocks failed: AAA" in told
    assert "kronos_adapter" not in told
    assert told.code == 1


BASES = ["--stocks", "AAA", "--base", "kronos=tiny,toto=tiny"]
TINY = [*BASES, "--grid"]
REFUSED = {
    "unknown symbol": (
        ["--stocks", "AAB"],
        "AAB is not in the universe and has no bars: did you mean AAA?",
    ),
    "no bars": (["--stocks", "AAA", "COIN"], "no bars of COIN: import them"),
    "nothing chosen": ([], "say which stocks: one of --stocks"),
    "two choices": (["--stocks", "AAA", "--all"], "say which stocks"),
    "malformed month": (["--stocks", "AAA", "--month", "2023-8"], "write it as YYYY-MM"),
    "future month": (["--stocks", "AAA", "--month", "2999-01"], "lies in the future"),
    "month too early": (["--stocks", "AAA", "--month", "2014-12"], "lies before 2015-01"),
    "unknown base": (["--stocks", "AAA", "--base", "huge"], "no Kronos base 'huge'"),
    "unknown family": (["--stocks", "AAA", "--model-type", "lstm"], "no model family 'lstm'"),
    "no epochs": ([*BASES, "--epochs-scale", "0"], "above 0"),
    "unknown setting": ([*TINY, "heat=1"], "no setting 'heat' to search: use context_length, "),
    "temperature": ([*TINY, "temperature=-1"], "'temperature' must be a number above 0"),
    "top_p": ([*TINY, "top_p=1.5"], "'top_p' must be in (0, 1]"),
    "a value twice": ([*TINY, "top_k=20,20"], "'top_k' has the value 20 twice"),
    "no number": ([*TINY, "top_k=many"], "--grid top_k: 'many' is no number"),
    "no values": ([*TINY, "top_k="], "write a setting and its values, such as top_k=20"),
    "a setting twice": ([*TINY, "top_k=20", "top_k=50"], "--grid top_k is given twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_ends_before_anything_runs(home: Home, retrain: Any, case: str) -> None:
    arguments, message = REFUSED[case]
    told = retrain("run", *arguments)
    assert told.code == 2
    assert message in told
    assert told.startswith("error: ")
    assert not home.assets.exists()


def test_a_malformed_universe_names_file_line_and_field(home: Home, retrain: Any) -> None:
    home.universe.write_text(home.universe.read_text() + "  - {symbol: X, overrides: {rank: 0}}\n")
    told = retrain("run", "--all")
    assert told.code == 2
    assert f"{home.universe} line 8, stocks[5].overrides (X): rank is 0" in told


def test_a_foreign_data_folder_is_refused(
    home: Home, retrain: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RETRAIN_HOME", str(tmp_path))
    told = retrain("run", "--all")
    assert told.code == 2
    assert "lacks universe.yaml" in told


def test_a_pipeline_does_everything_and_ends_with_the_report(searched: Home, answer: Any) -> None:
    # As the finished installation was made, so that nothing is computed again.
    grid = ["--grid", "num_samples=2,4", "temperature=.6,1", "top_k=3,off", "top_p=.8,off"]
    told, shown = answer("pipeline", "--stocks", "AAA", "SHORT", "--month", MONTH, *QUICK, *grid)
    assert (told["command"], told["exit_code"], told["error"]) == ("pipeline", 1, None)
    assert (told["month"], told["without_bars"]) == (MONTH, [])
    done, failed = told["stocks"]["AAA"], told["stocks"]["SHORT"]
    assert (done["status"], done["errors"]) == ("success", [])
    compared = done["comparison"]
    assert (compared["holdout_days"], compared["prediction_length"]) == (7, 16)
    holdout, plan = compared["test"]["holdout"], compared["test"]["plan"]
    names = {"naive", "drift", "kronos.zero_shot", "kronos.adapter", "kronos.chosen"}
    assert names <= set(holdout) == set(plan)
    naive, chosen = holdout["naive"], holdout["kronos.chosen"]
    assert naive["skill_pct"] == 0
    assert chosen["skill_pct"] == pytest.approx(100 * (1 - chosen["mae"] / naive["mae"]))
    params = done["params"]["kronos"]
    assert params["chosen"].keys() == params["default"].keys()
    assert params["test_mae_pct"] == pytest.approx(chosen["mae_pct"])
    assert done["decision"]["families"]["kronos"]["promoted"] is False
    assert (failed["status"], failed["comparison"]) == ("failed", None)
    assert "needs 316 bars, has 144" in failed["errors"][0]
    assert told["analysis"]["month"] == MONTH
    assert {row["symbol"] for row in told["analysis"]["failures"]} == {"SHORT"}
    files = [Path(file) for file in told["files"]]
    assert all(file.exists() for file in files)
    assert {"regression_analysis.json", "export"} <= {file.name for file in files}
    assert "AAA    kronos_adapter: " in shown
    assert f"Regression analysis of {MONTH}" in shown
    wide = [line for line in shown.splitlines() if len(line) > 100]
    assert [line for line in wide if not line.startswith("Results: ")] == []


def test_a_comparison_compares_what_is_stored_and_decides_nothing(
    searched: Home, answer: Any
) -> None:
    kept = {file: file.read_bytes() for file in (searched.assets / "champion").rglob("*.json")}
    told, _ = answer("compare", "--stocks", "AAA", "SHORT", "--month", MONTH, "--device", "cpu")
    assert told["exit_code"] == 1
    done, failed = told["stocks"]["AAA"], told["stocks"]["SHORT"]
    assert done["comparison"]["winner"]
    assert (done["params"], done["decision"]) == ({}, None)
    assert failed["run_id"] is None
    assert failed["errors"] == [
        f"no {' or '.join(families())} adapter of SHORT 2023-08: train one with `retrain run "
        "--stocks SHORT --month 2023-08`"
    ]
    assert {file: file.read_bytes() for file in kept} == kept
    # A request that is refused is no failure of the stock: the results stay as they are.
    summary = searched.results / "comparison_results" / MONTH / "comparison_summary_h16.json"
    before = summary.read_bytes()
    told, _ = answer("compare", "--stocks", "AAA", "--month", MONTH, "--holdout-days", "14")
    assert told["exit_code"] == 1
    (reason,) = told["stocks"]["AAA"]["errors"]
    assert "was trained for holdout_days 7 and prediction_length 16, not 14 and 16" in reason
    assert "`retrain run --stocks AAA --month 2023-08 --holdout-days 14" in reason
    assert (told["files"], summary.read_bytes()) == ([], before)
    told, _ = answer("analyze", "--stocks", "AAA", "--month", MONTH)
    assert (told["exit_code"], told["analysis"]["failures"]) == (0, [])


UNUSABLE = {
    "an unknown symbol": (["run", "--stocks", "AAB"], "AAB is not in the universe"),
    "no bars": (["pipeline", "--stocks", "NONE"], "no bars of NONE"),
    "no choice": (["compare"], "say which stocks"),
    "an option out of range": (["compare", "--all", "--holdout-days", "0"], "greater than or"),
    "an unknown option": (["validate", "--fast"], "No such option"),
    "an unknown command": (["fly"], "No such command"),
    "a flag without values": (["run", "--stocks"], "is given without a value"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_bad_input_is_an_object_as_well(home: Home, answer: Any, case: str) -> None:
    arguments, message = UNUSABLE[case]
    told, _ = answer(*arguments)
    assert told["exit_code"] == 2
    assert message in told["error"]
    assert "stocks" not in told
    assert not home.assets.exists()


def test_help_explains_codes(home: Home, retrain: Any) -> None:
    told = retrain("--help")
    assert told.code == 0
    for code in ("0: all stocks", "1: a stock failed", "2: an option", "130: Ctrl-C"):
        assert code in told
    for command in ("run", "validate", "compare", "pipeline", "analyze", "status", "backtest"):
        assert "--json" in retrain(command, "--help"), command


def test_options_out_of_range_are_usage_errors(home: Home, retrain: Any) -> None:
    assert retrain("run", "--stocks", "AAA", "--holdout-days", "0").code == 2
    assert retrain("run", "--stocks", "AAA", "--max-steps", "many").code == 2
    assert retrain("fly").code == 2


@pytest.mark.long
def test_validate_searches_what_is_stored_and_says_what_is_not(
    searched: Home, retrain: Any
) -> None:
    lengths = ["--holdout-days", "6", "--prediction-length", "12"]
    told = retrain("validate", "--stocks", "AAA", "SHORT", "--month", MONTH, *lengths, *GRID)
    assert told.code == 1
    assert "grid num_samples 2/4, temperature 0.6/1, top_k 3/off, top_p off" in told
    assert "AAA kronos_params: round 1: 8 settings in 4 groups" in told
    assert "AAA done" in told
    assert "Parameters chosen for 6 sessions ahead" in told
    assert "1 of 2 stocks failed: SHORT: kronos_params: no kronos adapter of SHORT" in told
    assert f"`retrain run --stocks SHORT --month {MONTH}`" in told
    assert "comparison_summary" not in told
    file = (
        searched.results / "validation_results" / MONTH / "hyperparameter_validation_results.json"
    )
    assert f"Results: {file}" in told
    (entry, *_) = json.loads(file.read_text())
    assert (entry["stock"], entry["kronos"]["prediction_length"]) == ("AAA", 12)


REFUSED_VALIDATIONS = {
    "nothing chosen": ([], "say which stocks: one of --stocks"),
    "unknown family": (["--stocks", "AAA", "--model-type", "lstm"], "no model family 'lstm'"),
    "unknown setting": (["--stocks", "AAA", "--grid", "heat=1"], "no setting 'heat' to search"),
    "malformed grid": (["--stocks", "AAA", "--grid", "20,off"], "write a setting and its values"),
    "no grid": (["--stocks", "AAA", "--grid"], "--grid is given without a value"),
}


@pytest.mark.parametrize("case", REFUSED_VALIDATIONS)
def test_a_bad_validation_ends_before_anything_runs(home: Home, retrain: Any, case: str) -> None:
    arguments, message = REFUSED_VALIDATIONS[case]
    told = retrain("validate", *arguments)
    assert told.code == 2
    assert message in told
    assert not home.assets.exists()


def test_an_import_stores_bars_and_makes_them_usable(
    home: Home, retrain: Any, tmp_path: Path
) -> None:
    file = tmp_path / "prices.csv"
    made_bars(60, seed=9).to_csv(file, index=False)
    told = retrain("import", str(file), "--symbol", "none")
    assert told.code == 0
    assert "NONE: 60 bars" in told
    assert (home.market / "NONE.parquet").exists()


@pytest.mark.long
def test_a_symbol_that_is_not_listed_is_taken_as_a_us_stock(
    home: Home, retrain: Any, tmp_path: Path
) -> None:
    file = tmp_path / "NEW.csv"
    made_bars(60, seed=9).to_csv(file, index=False)
    told = retrain("import", str(file))
    assert told.code == 0
    assert "not in universe.yaml: taken as a US stock" in told
    refused = retrain("run", "--stocks", "NEW", "--month", "2016-02", "--no-progress", *QUICK)
    assert "NEW has no bar in 2016-02" in refused


def test_a_refused_file_is_told_and_stops_no_other(
    home: Home, retrain: Any, tmp_path: Path
) -> None:
    bad, good = tmp_path / "BBB.csv", tmp_path / "NONE.csv"
    before = (home.market / "BBB.parquet").read_bytes()
    made_bars(60, seed=9).assign(close=-1.0).to_csv(bad, index=False)
    made_bars(60, seed=9).to_csv(good, index=False)
    told = retrain("import", str(bad), str(good))
    assert told.code == 1
    assert "BBB: refused" in told
    assert "NONE: 60 bars" in told
    assert (home.market / "BBB.parquet").read_bytes() == before


def test_env_prints_what_a_shell_needs(home: Home, retrain: Any) -> None:
    told = retrain("env")
    assert told == f"export DAGSTER_HOME={home.dagster} export RETRAIN_HOME={home.root}"


@pytest.mark.long
def test_the_guides_half_more_epochs_can_be_left_out(home: Home, retrain: Any) -> None:
    arguments = ["--stocks", "AAA", "--month", MONTH, "--no-extended-epochs", "--no-progress"]
    arguments += ["--no-search"]
    assert retrain("run", *arguments, *QUICK).code == 0
    record = json.loads((home.assets / "kronos_adapter" / MONTH / "AAA.json").read_text())
    assert (record["plan"]["extended_epochs"], record["plan"]["epochs"]) == (22, 15)
    assert not (home.assets / "kronos_params").exists()
    assert not (home.results / "validation_results").exists()
