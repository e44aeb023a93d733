"""What is decided month after month, and what follows from it: the real graph on tiny bases."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrain_assets import load_forecaster
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import Version
from retrain_assets.files import read_json, write_json
from retrain_assets.followups import Promote
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore, content_hash
from retrain_assets_tests.finished import ran
from retrain_assets_tests.walked import (
    AUGUST,
    FAMILIES,
    JULY,
    SEPTEMBER,
    STOCK,
    Capsys,
    aliases,
    champion,
    comparison,
    comparison_files,
    contents,
    decided,
    in_place,
    materialized,
    plant_a_gain,
    retrain,
    version_of,
)


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
