"""The monthly report of a run, and the command that makes it anew."""

from __future__ import annotations

import json
import webbrowser
from html import unescape
from pathlib import Path

import dagster as dg
import pytest
from hatchling.builders.wheel import WheelBuilder

from retrain_assets import cli
from retrain_assets.defs.month_report import SUMMARY
from retrain_assets.files import read_json
from retrain_assets.home import Home
from retrain_assets_tests.finished import Finished
from retrain_assets_tests.installed import MONTH

ROOT = Path(__file__).parents[2]


def retrain(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code of the command line, and what it printed on either stream."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0), *capsys.readouterr()


def report_of(home: Home) -> Path:
    return home.results / "monthly" / f"{MONTH}.html"


def test_a_run_writes_it_with_all_that_came_of_it(finished: Finished) -> None:
    file = report_of(finished.home)
    assert file in finished.files
    text = unescape(file.read_text(encoding="utf-8"))
    assert "2 of 3 stocks were compared: " in text
    assert f"begin with <code>retrain run --stocks SHORT --month {MONTH}</code>." in text
    for failure in finished.outcomes["SHORT"].failures:
        assert failure in text
    record = finished.outcomes["AAA"].record
    assert record is not None
    assert record["reason"] in text
    for picture in ("skill-by-stock", "fan-AAA", "fan-BBB", "learning-AAA", "learning-BBB"):
        assert f'aria-labelledby="{picture}-title' in text
    assert f"http://127.0.0.1:3000/runs/{finished.outcomes['AAA'].run_id}" in text
    assert "kronos_adapter in MLflow" in text


def test_its_partition_shows_the_three_sentences(finished: Finished) -> None:
    with dg.DagsterInstance.get() as instance:
        wanted = dg.AssetRecordsFilter(dg.AssetKey("month_report"), asset_partitions=[MONTH])
        (made,) = instance.fetch_materializations(wanted, limit=1).records
    assert made.asset_materialization is not None
    metadata = made.asset_materialization.metadata
    told = str(metadata[SUMMARY].value).splitlines()
    assert [line.split(":")[0] for line in told] == [
        "- **Forecasts**",
        "- **Production**",
        "- **To do**",
    ]
    assert metadata["stocks"].value == 2
    assert metadata["file"].value == str(report_of(finished.home))
    size = report_of(finished.home).stat().st_size
    assert metadata["size, kB"].value == round(size / 1000)


def test_the_command_makes_the_same_file_again_and_shows_it(
    searched: Home,
    finished_once: Finished,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or True)
    report_of(searched).unlink()
    code, out, _ = retrain(capsys, "report", "--open")  # of the last month that is over
    assert code == 0
    assert shown == [report_of(searched).as_uri()]
    assert str(report_of(searched)) in out.splitlines()
    assert "- Forecasts: 2 of 3 stocks were compared: " in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    # The same records in another folder: nothing of a folder or a clock is in it.
    assert report_of(searched).read_bytes() == report_of(finished_once.home).read_bytes()


def test_it_follows_what_changed_and_tells_scripts_as_well(
    searched: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = searched.assets / "champion" / MONTH / "AAA.json"
    record = read_json(file)
    record["pointer"]["decision"]["reason"] = "<b>another</b> reason"
    file.write_text(json.dumps(record), encoding="utf-8")
    (searched.results / "comparison_results" / MONTH / "BBB_forecasts.parquet").unlink()
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    code, out, err = retrain(capsys, "report", "--month", MONTH, "--open", "--json")
    answer = json.loads(out)
    assert (code, answer["exit_code"], answer["error"]) == (0, 0, None)
    assert answer["files"] == [str(report_of(searched))]
    assert (answer["month"], answer["opened"], len(answer["summary"])) == (MONTH, False, 3)
    assert "No browser was found: open the file yourself." in err
    text = report_of(searched).read_text(encoding="utf-8")
    assert "&lt;b&gt;another&lt;/b&gt; reason" in text
    assert 'id="fan-AAA-title"' in text
    assert 'id="fan-BBB-title"' not in text


def test_damaged_forecasts_are_named(searched: Home, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = searched.results / "comparison_results" / MONTH / "AAA_forecasts.parquet"
    damaged.write_bytes(b"PAR1 no more")
    before = report_of(searched).read_bytes()
    code, _, err = retrain(capsys, "report", "--month", MONTH)
    assert code == 2
    words = " ".join(err.split())
    assert str(damaged) in words
    assert "remove it and materialize comparison again" in words
    assert report_of(searched).read_bytes() == before


def test_the_wheel_has_the_page_and_its_style() -> None:
    wheel = WheelBuilder(str(ROOT)).recurse_included_files()
    packed = {file.distribution_path for file in wheel}
    folder = "retrain_assets/evaluation/monthly"
    assert {f"{folder}/page.html.j2", f"{folder}/page.css"} <= packed
