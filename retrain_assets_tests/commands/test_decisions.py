"""What is decided month after month, and what follows from it: the real graph on tiny bases."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from retrain_assets import load_forecaster, runs
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import Version, version_forecaster
from retrain_assets.files import read_json, write_json
from retrain_assets.followups import Confirm, Promote
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets.models.forecaster import Window, families
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.work import Search, Validation
from retrain_assets_tests.finished import ran
from retrain_assets_tests.installed import entered
from retrain_assets_tests.walked import (
    ASKED,
    AUGUST,
    JULY,
    SEPTEMBER,
    STOCK,
    aliases,
    champion,
    comparison,
    comparison_files,
    contents,
    copied,
    decided,
    forget_last_month,
    in_place,
    kept_file,
    materialized,
    plant_a_gain,
    retrain,
    run_month,
    summarised,
)

Capsys = pytest.CaptureFixture[str]
FAMILIES = ("kronos", "toto")


@pytest.fixture(scope="module")
def walked_once(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """July and August have run, and what the two decided stands."""
    with copied(Home(template), tmp_path_factory.mktemp("walked") / "data") as home:
        for month in (JULY, AUGUST):
            run_month(home, month)
            # Every correction of statsmodels collects garbage: spare it what is loaded by now.
            gc.freeze()
    yield home
    gc.unfreeze()


@pytest.fixture(scope="module")
def promoted_once(walked_once: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """August's Kronos candidate errs so much less that it was promoted, and is in production.

    Of AAA, which was never retrained, naive is.
    """
    with copied(walked_once, tmp_path_factory.mktemp("promoted") / "data") as home:
        plant_a_gain(home, AUGUST)
        decided(home)
        assert materialized(home, "AAA", AUGUST, "market_bars", "champion").success
        summarised(home)
    return home


@pytest.fixture(scope="module")
def kept_once(walked_once: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """July's Kronos candidate was promoted; August has no forecasts of it and is to be decided."""
    with copied(walked_once, tmp_path_factory.mktemp("kept") / "data") as home:
        plant_a_gain(home, JULY)
        decided(home, JULY)
        write_json(home.root / "forgotten.json", forget_last_month(home, AUGUST))
    return home


@pytest.fixture
def walked(walked_once: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The two months, to be read only."""
    return entered(walked_once.root, monkeypatch)


@pytest.fixture
def own(walked_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of the two months."""
    with copied(walked_once, tmp_path / "data") as home:
        yield home


@pytest.fixture
def promoted(promoted_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of the promotion."""
    with copied(promoted_once, tmp_path / "data") as home:
        yield home


@pytest.fixture
def kept(kept_once: Home, tmp_path: Path) -> Iterator[Home]:
    """A copy of July's promotion, with August to be decided."""
    with copied(kept_once, tmp_path / "data") as home:
        yield home


def version_of(record: dict[str, Any], family: str, what: str = "champion") -> Version:
    return Version.from_json(record["families"][family][what])


def test_the_first_incumbents_are_the_bases_as_published_and_naive(walked: Home) -> None:
    july = champion(walked, JULY)
    assert july["previous_month"] is None
    assert july["pointer"]["incumbent"]["family"] == "naive"
    published = comparison(walked, JULY)["zero_shot"]
    assert {f: july["families"][f]["incumbent"] for f in FAMILIES} == published
    assert (july["final"], july["live"]) == (True, False)


def test_the_next_month_begins_with_what_the_one_before_decided(walked: Home) -> None:
    july, august = champion(walked, JULY), champion(walked, AUGUST)
    assert august["previous_month"] == JULY
    assert august["pointer"]["incumbent"] == july["pointer"]["version"]
    compared = comparison(walked, AUGUST)
    columns = {Version.from_json(v).id: f"{f}.zero_shot" for f, v in compared["zero_shot"].items()}
    columns |= {
        Version.from_json(v).id: f"{f}.last_month" for f, v in compared["last_month"].items()
    }
    for family in FAMILIES:
        assert august["families"][family]["incumbent"] == july["families"][family]["champion"]
        column = columns[version_of(august, family, "incumbent").id]
        for segment, table in compared["losses"].items():
            found = august["losses"][segment]
            assert found["cutoff"] == table["cutoff"]
            np.testing.assert_allclose(found[f"{family}.incumbent"], table[column], rtol=1e-12)


def test_last_months_candidates_forecast_this_months_origins(walked: Home) -> None:
    july, august = comparison(walked, JULY), comparison(walked, AUGUST)
    assert july["last_month"] == {}
    assert august["last_month"] == {f: july["candidates"][f]["version"] for f in FAMILIES}
    rows = {(row["candidate"], row["segment"], row["scope"]) for row in august["scores"]}
    for family in FAMILIES:
        assert (f"{family}.last_month", "test", "plan") in rows


def test_only_the_latest_final_month_is_live_and_every_decision_is_kept(walked: Home) -> None:
    store = ProductionStore(walked.production)
    august = champion(walked, AUGUST)
    assert august["live"] is True
    assert store.live(STOCK) == august
    assert store.decisions(STOCK) == [champion(walked, JULY), august]
    for family in FAMILIES:
        state = {what: version_of(august, family, what).id for what in ("champion", "candidate")}
        expected = {"champion": state["champion"]}
        if state["candidate"] != state["champion"]:
            expected["challenger"] = state["candidate"]
        assert aliases(walked, family) == expected


def test_a_month_that_is_filled_in_later_moves_nothing(promoted: Home, capsys: Capsys) -> None:
    before, exported = in_place(promoted), contents(promoted.export)
    code, told = retrain(capsys, "promote", "--stocks", STOCK, "--month", JULY, "--no-progress")
    assert code == 0
    assert "(naive)" in told  # in brackets, since it is not live
    assert in_place(promoted) == before
    assert contents(promoted.export) == exported
    later = ProductionStore(promoted.production).decisions(STOCK)[-1]
    assert (later["month"], later["live"]) == (JULY, False)
    assert any("2023-08 were decided before this month" in note for note in later["notes"])


def test_a_month_after_which_another_is_over_never_goes_live(own: Home) -> None:
    result = materialized(own, "AAA", JULY, "market_bars", "champion")
    assert result.success
    record, store = result.output_for_node("champion"), ProductionStore(own.production)
    assert (record["final"], record["live"]) == (True, False)
    assert store.live("AAA") is None
    assert store.decisions("AAA") == [record]


def test_the_running_month_decides_nothing(promoted: Home) -> None:
    before, now = in_place(promoted), comparison(promoted, AUGUST)
    bars = BarStore(promoted.market).read(STOCK)
    now |= {"month": SEPTEMBER, "provisional": True, "bars_hash": content_hash(bars)}
    for file in comparison_files(promoted, SEPTEMBER):
        write_json(file, now)
    result = materialized(promoted, STOCK, SEPTEMBER, "market_bars", "champion")
    assert result.success
    record = result.output_for_node("champion")
    assert (record["final"], record["live"]) == (False, False)
    states = [*record["families"].values(), record["pointer"]]
    assert {s["decision"]["reason"] for s in states} == {
        "the month is not over: everything stays as it is"
    }
    august = champion(promoted, AUGUST)
    for family in FAMILIES:
        assert version_of(record, family) == version_of(august, family)
    assert in_place(promoted) == before


def test_without_a_comparison_everything_stays_and_it_is_said(own: Home) -> None:
    for file in comparison_files(own, AUGUST):
        file.unlink()
    record, before = decided(own), champion(own, JULY)
    assert record["pointer"]["to"] == before["pointer"]["to"]
    for family in FAMILIES:
        state = record["families"][family]
        assert state["champion"] == before["families"][family]["champion"]
        assert state["decision"]["promote"] is False
        assert state["decision"]["reason"] == (
            "no comparison of this month: everything stays as it is"
        )


def test_a_stock_that_was_never_compared_begins_with_naive(promoted: Home) -> None:
    first = ProductionStore(promoted.production).live("AAA")
    assert first is not None
    assert (first["families"], first["pointer"]["to"]) == ({}, "naive")
    reason = first["pointer"]["decision"]["reason"]
    assert reason == "no comparison of this month: everything stays as it is"
    assert load_forecaster("AAA", home=promoted.root).source == "naive"


def test_a_promotion_reaches_record_registry_export_and_live_use(promoted: Home) -> None:
    record = champion(promoted, AUGUST)
    state, pointer = record["families"]["kronos"], record["pointer"]
    version = Version.from_json(state["champion"])
    assert state["decision"]["promote"] is True
    assert state["champion"] == comparison(promoted, AUGUST)["candidates"]["kronos"]["version"]
    assert state["since"] == pointer["since"] == AUGUST
    assert (pointer["to"], pointer["version"]) == ("kronos", state["champion"])
    assert ProductionStore(promoted.production).live(STOCK) == record
    assert aliases(promoted) == {"champion": version.id}  # the candidate is no challenger any more
    settings = read_json(promoted.export / "hyperparams" / "kronos" / f"{STOCK}.json")
    assert settings["version"] == version.id
    assert settings["in_production"] is True
    assert (promoted.export / settings["model_path"] / "adapter_model.safetensors").exists()
    other = read_json(promoted.export / "hyperparams" / "toto" / f"{STOCK}.json")
    assert other["in_production"] is False
    live = load_forecaster(STOCK, home=promoted.root)
    assert (live.version, live.source) == (version, f"kronos adapter of {AUGUST}")
    path = live.predict(BarStore(promoted.market).read(STOCK), 5, as_of="2023-09-11T23:00:00Z")
    assert len(path) == 5
    assert (path["mean"] != path["naive"]).all()


def listing(*roots: Path) -> dict[Path, tuple[int, int]]:
    found = [path for root in roots for path in root.rglob("*")]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def test_a_dry_run_tells_the_decisions_and_writes_nothing(own: Home, capsys: Capsys) -> None:
    plant_a_gain(own, AUGUST)
    places = (own.production, own.assets, own.export, own.results, own.tracking, own.models)
    before = listing(*places)
    code, told = retrain(capsys, "promote", "--stocks", STOCK, "--dry-run")
    assert code == 0
    assert f"{STOCK} kronos: promoted, it errs" in told
    assert f"{STOCK} toto: stays, it errs" in told
    assert f"{STOCK} in production: kronos, it errs" in told
    assert told.endswith("A dry run: nothing was decided.")
    assert listing(*places) == before


def test_stricter_rules_keep_what_is_there_and_bad_ones_are_refused(
    own: Home, capsys: Capsys
) -> None:
    plant_a_gain(own, AUGUST)
    dry = ("promote", "--stocks", STOCK, "--dry-run", "--rule")
    assert f"{STOCK} in production: naive" in retrain(capsys, *dry, "smallest_gain=.99")[1]
    for rule, message in {
        "smallest_gain=2": "smallest_gain is 2",
        "luck=1": "there is no rule luck: use yearly_error, looks",
        "smallest_gain": "write a name and a number, name=0.02",
    }.items():
        code, told = retrain(capsys, *dry, rule)
        assert code == 2
        assert message in told


def test_a_rollback_puts_back_champions_pointer_aliases_and_export(
    promoted: Home, capsys: Capsys
) -> None:
    code, told = retrain(capsys, "rollback", STOCK, "--to", JULY)
    assert code == 0
    assert f"rolled back by hand to what {JULY} decided" in told
    july, live = champion(promoted, JULY), ProductionStore(promoted.production).live(STOCK)
    assert live is not None
    assert (live["month"], live["rolled_back_to"], live["live"]) == (AUGUST, JULY, True)
    assert live["pointer"]["to"] == "naive"
    for family in FAMILIES:
        before = version_of(july, family)
        assert version_of(live, family) == before
        assert aliases(promoted, family) == {"champion": before.id}
        settings = read_json(promoted.export / "hyperparams" / family / f"{STOCK}.json")
        assert (settings["version"], settings["in_production"]) == (before.id, False)
    assert load_forecaster(STOCK, home=promoted.root).source == "naive"
    # It holds until the stock is decided on again.
    assert decided(promoted)["pointer"]["to"] == "kronos"


def test_a_rollback_in_the_assets_configuration_does_the_same(promoted: Home) -> None:
    result = materialized(
        promoted, STOCK, AUGUST, "champion", job="promote_stock", champion={"rollback_to": JULY}
    )
    assert result.success
    live = ProductionStore(promoted.production).live(STOCK)
    assert live == result.output_for_node("champion")
    assert live["rolled_back_to"] == JULY
    assert aliases(promoted)["champion"] == version_of(champion(promoted, JULY), "kronos").id


def test_a_rollback_of_an_older_month_or_to_an_unknown_one_is_refused(promoted: Home) -> None:
    before, decisions = in_place(promoted), contents(promoted.production)
    for month, to, message in (
        (AUGUST, "2023-01", f"on {STOCK} in 2023-01: choose one of {JULY}, {AUGUST}"),
        (JULY, AUGUST, f"{JULY} is not the month that is live for {STOCK}"),
    ):
        (outcome,) = ran(promoted, STOCK, month=month, work=Promote(rollback_to=to)).values()
        assert message in (outcome.error or "")
    assert in_place(promoted) == before
    assert contents(promoted.production) == decisions


def test_an_incumbent_that_was_not_compared_is_forecast_on_the_same_origins(kept: Home) -> None:
    record, taken = decided(kept), read_json(kept.root / "forgotten.json")
    assert version_of(record, "kronos", "incumbent").month == JULY
    for segment, losses in taken.items():
        found = record["losses"][segment]["kronos.incumbent"]
        np.testing.assert_allclose(found, losses, rtol=1e-12)


@pytest.mark.parametrize("what", ["removed", "altered"])
def test_a_champion_whose_files_are_amiss_stops_the_decision(kept: Home, what: str) -> None:
    folder = broken_adapter(kept, JULY, what)
    before, decisions = in_place(kept), contents(kept.production)
    (outcome,) = ran(kept, STOCK, work=Promote()).values()
    assert outcome.error is not None
    assert str(folder) in outcome.error
    assert "retrain" in outcome.error.replace(str(folder), "")
    assert in_place(kept) == before
    assert contents(kept.production) == decisions


def broken_adapter(home: Home, month: str, what: str) -> Path:
    """Remove the adapter of Kronos' champion, or alter one of its weights; returns its folder."""
    adapter = champion(home, month)["families"]["kronos"]["champion"]["adapter"]
    folder = ModelStore(home.models).path(AdapterRecord.from_json(adapter))
    if what == "removed":
        shutil.rmtree(folder)
        return folder
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    weights[sorted(weights)[0]].view(-1)[0] += 1
    save_file(weights, file)
    return folder


@pytest.mark.parametrize("what", ["removed", "altered"])
def test_an_export_of_a_champion_whose_files_are_amiss_is_refused(
    promoted: Home, capsys: Capsys, what: str
) -> None:
    folder, before = broken_adapter(promoted, AUGUST, what), contents(promoted.export)
    code, told = retrain(capsys, "export")
    assert code == 2
    assert str(folder) in told
    assert contents(promoted.export) == before


def test_a_broken_champion_hides_nothing_of_other_stocks(promoted: Home, capsys: Capsys) -> None:
    folder = broken_adapter(promoted, AUGUST, "removed")
    code, told = retrain(capsys, "promote", "--stocks", "AAA", "--month", AUGUST, "--no-progress")
    assert "AAA in production naive no comparison of this month" in told
    assert f"error: the summary of {AUGUST} was not written: " in told
    assert str(folder) in told
    assert code == 1


def test_an_export_goes_where_it_is_told_and_replaces_nothing_else(
    promoted: Home, capsys: Capsys, tmp_path: Path
) -> None:
    target = tmp_path / "models"
    code, told = retrain(capsys, "export", "--to", str(target))
    assert code == 0
    files = {p.relative_to(target): b for p, b in contents(target).items()}
    assert f"{len(files)} files in {target}" in told
    assert files == {
        p.relative_to(promoted.export): b for p, b in contents(promoted.export).items()
    }
    (target / "notes.txt").write_text("mine")
    code, told = retrain(capsys, "export", "--to", str(target))
    assert code == 2
    assert f"{target} holds notes.txt, which is not of an export" in told


def test_a_stock_that_vanished_is_listed_and_harms_no_other(promoted: Home, capsys: Capsys) -> None:
    (promoted.market / f"{STOCK}.parquet").unlink()
    lines = promoted.universe.read_text(encoding="utf-8").splitlines(keepends=True)
    promoted.universe.write_text("".join(line for line in lines if STOCK not in line))
    code, told = retrain(capsys, "analyze", "--month", AUGUST)
    assert code == 0
    assert f"Gone: {STOCK}: " in told
    report = read_json(promoted.results / "regression" / AUGUST / "regression_analysis.json")
    assert [entry["symbol"] for entry in report["vanished"]] == [STOCK]
    assert STOCK not in {entry["symbol"] for entry in report["missing"]}
    assert retrain(capsys, "export")[0] == 0
    index = read_json(promoted.export / "export.json")
    assert list(index["stocks"]) == ["AAA"]
    assert STOCK in {entry["what"] for entry in index["left_out"]}


def test_the_report_lists_what_failed_is_missing_and_is_stale(own: Home, capsys: Capsys) -> None:
    hot = Validation(families=("toto",), search=Search(grid={"temperature": (-1.0,)}))
    (failed,) = ran(own, STOCK, work=hot).values()
    assert failed.search_errors
    store = BarStore(own.market)
    bars = store.read(STOCK).copy()
    bars.loc[len(bars) - 20, "volume"] += 1
    store.write(STOCK, bars, source="corrected")
    code, told = retrain(capsys, "analyze", "--month", AUGUST)
    assert code == 0
    assert f"Failed: {STOCK} toto_params: temperature is -1.0: give a number" in told
    missing = [f"{name}_{kind}" for name in families() for kind in ("adapter", "params")]
    assert f"Missing: AAA: {', '.join(missing)}" in told
    assert f"{STOCK} comparison: made of other bars than are stored now" in told
    assert f"Recommendations: retrain run --stocks {STOCK} AAA SHORT --month {AUGUST}" in told
    report = read_json(own.results / "regression" / AUGUST / "regression_analysis.json")
    assert {"regressions", "failures", "summary"} <= set(report)
    assert {"total_regressions", "total_failures", "avg_regression_pct"} <= set(report["summary"])
    (failure,) = report["failures"]
    assert (failure["symbol"], failure["asset"]) == (STOCK, "toto_params")
    assert report["summary"]["total_failures"] == 1
    stale = {entry["asset"] for entry in report["stale"] if entry["symbol"] == STOCK}
    assert {"kronos_adapter", "toto_params", "comparison"} <= stale


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
    assert len(store.decisions(STOCK)) == 4
    assert aliases(own) == {"champion": version_of(live, "kronos").id}
    assert read_json(own.export / "hyperparams" / "kronos" / f"{STOCK}.json")["in_production"]
