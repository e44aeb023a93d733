"""Champions, stocks and runs with which something is amiss: told, and no harm to others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrain_assets.files import read_json
from retrain_assets.followups import Promote
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models.forecaster import families
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.work import Search, Validation
from retrain_assets_tests.finished import ran
from retrain_assets_tests.walked import (
    AUGUST,
    JULY,
    STOCK,
    Capsys,
    champion,
    contents,
    decided,
    in_place,
    retrain,
    version_of,
)


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
