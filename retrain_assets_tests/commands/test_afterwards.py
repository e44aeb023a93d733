"""What comes after a decision: a longer look, the ladder, the live record, a walk."""

from __future__ import annotations

import os
import subprocess
import sys

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from retrain_assets import runs
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import version_forecaster
from retrain_assets.files import read_json, write_json
from retrain_assets.followups import Confirm
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import Window
from retrain_assets.training.adapter_store import ModelStore
from retrain_assets_tests.finished import ran
from retrain_assets_tests.walked import (
    ASKED,
    AUGUST,
    FAMILIES,
    JULY,
    STOCK,
    Capsys,
    aliases,
    champion,
    comparison,
    in_place,
    kept_file,
    materialized,
    plant_a_gain,
    retrain,
    version_of,
)


def test_a_longer_look_is_shown_in_the_report_and_has_its_bounds(own: Home, capsys: Capsys) -> None:
    look = ("analyze", "--stocks", STOCK, "--month", AUGUST, "--no-progress", "--device", "cpu")
    (outcome,) = ran(own, STOCK, work=Confirm(28)).values()
    assert "holdout_days is 28: give 7 to 23" in (outcome.error or "")
    code, told = retrain(capsys, *look, "--holdout-days", "21")
    assert code == 0
    assert f"{STOCK}: month {AUGUST}, last 21 sessions" in told
    assert f"Regression analysis of {AUGUST}" in told
    found = read_json(own.assets / "confirmation" / AUGUST / f"{STOCK}.json")
    assert f"{STOCK}, last 21 sessions in 3 forecasts of 7: kronos candidate errs" in told
    (row,) = [r for r in found["tests"] if (r["family"], r["against"]) == ("toto", "last_month")]
    assert f"toto candidate errs {found['mae_pct']['toto.candidate']:.2f} %: " in told
    assert f"{row['change_pct']:+z.1f} % against last_month" in told
    compared = comparison(own, AUGUST)["losses"]["test"]
    assert found["origins"] == compared["cutoff"]
    for family in FAMILIES:
        close = np.array(compared["origin_close"])
        for rival in ("zero_shot", "last_month"):
            own_mae = 100 * np.mean(np.array(compared[f"{family}.{rival}"]) / close)
            assert found["mae_pct"][f"{family}.{rival}"] == pytest.approx(own_mae, rel=1e-9)


@pytest.mark.long
def test_the_ladder_is_climbed_a_rung_at_a_time_until_it_ends(own: Home, capsys: Capsys) -> None:
    drop_kronos(own)
    folder = own.models / "toto" / AUGUST / STOCK
    policy = (folder / "latest.json").read_bytes()
    refine = ("refine", "--stocks", STOCK, "--month", AUGUST, "--model-type", "toto")
    code, told = retrain(capsys, *refine, "--no-progress", "--device", "cpu")
    assert code == 0, told
    ladder = read_json(folder / "ladder.json")
    assert len(ladder["rungs"]) == 1
    record = comparison(own, AUGUST)
    assert len(record["losses"]["selection"]["toto.refined"]) == 13
    assert len(set(record["tried"]["toto"])) == 2
    assert all((own.models / tried / "params.json").exists() for tried in record["tried"]["toto"])
    results = [
        materialized(
            own, STOCK, AUGUST, "toto_refined", job="refine_stock", toto_refined={"rungs": 16}
        )
        for _ in range(2)
    ]
    assert all(result.success for result in results)
    ended = [result.output_for_node("toto_refined") for result in results]
    assert ended[0] == ended[1] == read_json(folder / "ladder.json")
    assert ended[0]["rungs"][0] == ladder["rungs"][0]
    assert len(ended[0]["rungs"]) >= 2
    assert "tried" in ended[0]["stopped"] or "did not lower" in ended[0]["stopped"]
    assert (folder / "latest.json").read_bytes() == policy


def drop_kronos(home: Home) -> None:
    """Leave Toto alone in what August compares, since what is not there need not be forecast."""
    for name in ("kronos_adapter", "kronos_params"):
        (home.assets / name / AUGUST / f"{STOCK}.json").unlink()
    file = kept_file(home, JULY)
    record = read_json(file)
    del record["families"]["kronos"]
    write_json(file, record)


def test_the_live_record_is_the_champions_own_forecasts_of_the_month_after(walked: Home) -> None:
    july = champion(walked, JULY)
    live = read_json(walked.results / "live" / AUGUST / f"{STOCK}.json")
    assert live == read_json(walked.assets / "live_performance" / AUGUST / f"{STOCK}.json")
    bars = BarStore(walked.market).read(STOCK, until=pd.Timestamp("2023-08-31"))
    before = int((bars["session"] <= "2023-07-31").sum()) - 1
    origins = [before, before + 7, before + 14]
    assert live["origins"] == [f"{bars['session'][o]:%Y-%m-%d}" for o in origins]
    assert (live["in_production"], live["drift"]["drifted"]) == ("naive", False)
    assert live["entries"]["pointer"]["skill"] == 0
    close = bars["close"].to_numpy()
    actual = np.stack([close[o + 1 : o + 8] for o in origins])
    for family in FAMILIES:
        version = version_of(july, family)
        forecaster = version_forecaster(
            version,
            name=family,
            store=ModelStore(walked.models),
            checkpoints=walked.checkpoints,
            device="cpu",
        )
        windows = [window(bars, origin, version.context) for origin in origins]
        found = forecaster.forecast(windows, [version.settings], seed=version.seed).mean[0]
        losses = np.abs(found - actual).mean(axis=1) / close[origins]
        np.testing.assert_allclose(live["entries"][family]["losses"], losses, rtol=1e-12)
        assert live["entries"][family]["mae_pct"] == pytest.approx(100 * losses.mean())


def window(bars: pd.DataFrame, origin: int, context: int) -> Window:
    past = bars.iloc[origin + 1 - context : origin + 1].reset_index(drop=True)
    return Window(past, pd.DatetimeIndex(bars["session"].iloc[origin + 1 : origin + 8]))


def test_a_drift_warns_and_stops_nothing(own: Home) -> None:
    file = kept_file(own, JULY)
    record = read_json(file)
    record["pointer"] |= {"to": "toto", "version": record["families"]["toto"]["champion"]}
    table = record["losses"]["selection"]
    column = "candidate" if record["families"]["toto"]["decision"]["promote"] else "incumbent"
    table[f"toto.{column}"] = [loss / 100 for loss in table["naive"]]
    write_json(file, record)
    result = materialized(own, STOCK, AUGUST, "live_performance")
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("live_drift", False)
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert "where it was selected, p = " in (check.description or "")


def test_a_month_that_was_walked_through_is_not_run_again(
    own: Home, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "families", lambda: dict.fromkeys(FAMILIES))
    before = in_place(own)
    walk = ("backtest", "--from", JULY, "--to", JULY, "--stocks", STOCK, *ASKED)
    code, told = retrain(capsys, *walk, "--no-progress")
    assert code == 0
    assert f"{JULY}: nothing to run, 1 done" in told
    assert read_json(own.results / "backtest" / f"{JULY}_{JULY}.json")["months"] == [JULY]
    assert in_place(own) == before


def test_a_walk_that_is_stored_is_reported_on(own: Home, capsys: Capsys) -> None:
    walk = ("backtest", "--from", JULY, "--to", AUGUST, "--stocks", STOCK, "--stored")
    code, told = retrain(capsys, *walk)
    assert code == 0
    assert "to run" not in told
    assert "Walk-forward: test skill % over naive, 7 sessions ahead" in told
    file = own.results / "backtest" / f"{JULY}_{AUGUST}.json"
    assert f"Results: {file}" in told
    report = read_json(file)
    assert report["months"] == [JULY, AUGUST]
    assert (report["failed"], report["without_pointer"]) == ({}, {})
    rows = {(row["month"], row["family"]): row["skill"] for row in report["by_month"]}
    assert set(rows) == {(month, family) for month in (JULY, AUGUST) for family in FAMILIES}
    for (month, family), skills in rows.items():
        assert set(skills) == {"zero_shot", "adapter", "chosen", "pointer"}
        test = comparison(own, month)["losses"]["test"]
        close = np.array(test["origin_close"])
        errors = {n: (np.array(test[n]) / close).sum() for n in ("naive", f"{family}.chosen")}
        skill = 1 - errors[f"{family}.chosen"] / errors["naive"]
        assert skills["chosen"] == pytest.approx(skill, rel=1e-9)
        assert skills["pointer"] == 0  # naive was in production


@pytest.mark.parametrize(
    ("months", "message"),
    [
        ((AUGUST, JULY), f"--from {AUGUST} lies after --to {JULY}: swap them"),
        (("2023-7", AUGUST), "month '2023-7' is malformed: write it as YYYY-MM"),
        ((JULY, "August"), "month 'August' is malformed: write it as YYYY-MM"),
    ],
)
def test_a_walk_through_no_months_is_refused(
    walked: Home, capsys: Capsys, months: tuple[str, str], message: str
) -> None:
    first, last = months
    code, told = retrain(capsys, "backtest", "--from", first, "--to", last, "--stocks", STOCK)
    assert code == 2
    assert message in told


@pytest.mark.long
def test_two_processes_that_decide_at_once_leave_one_whole_decision(own: Home) -> None:
    plant_a_gain(own, AUGUST)
    command = [sys.executable, "-m", "retrain_assets.cli", "promote", "--stocks", STOCK]
    environment = os.environ | {"RETRAIN_HOME": str(own.root), "DAGSTER_HOME": str(own.dagster)}
    started = [
        subprocess.Popen(
            [*command, "--no-progress", "--device", "cpu"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=280)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    store = ProductionStore(own.production)
    live = store.live(STOCK)
    assert live is not None
    assert live["pointer"]["to"] == "kronos"
    assert live == store.decisions(STOCK)[-1]
    # July's, August's first, and what both decided, which is kept once.
    assert len(store.decisions(STOCK)) == 3
    assert aliases(own) == {"champion": version_of(live, "kronos").id}
    assert read_json(own.export / "hyperparams" / "kronos" / f"{STOCK}.json")["in_production"]
