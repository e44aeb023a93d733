"""The report on one stock: complete, and no wider than 100 columns."""

from __future__ import annotations

import pytest

from retrain_assets.evaluation.stock_report import stock_text
from retrain_assets_tests.evaluation.records import ALL, compared_record


def test_the_report_holds_every_candidate_on_every_kind_of_forecast() -> None:
    record = compared_record("NVDA", ALL, winner="drift")
    record["notes"] = ["toto.refined is left out: it was fitted on bars this month judges on"]
    record["p_values"] = {"kronos.adapter": 0.0312, "drift": 0.5}
    text = stock_text(record)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text
    assert lines[0].startswith("NVDA 2023-08")
    assert "500 bars up to 2023-08-31; difficulty medium; seed 0" in text
    for title in ("Test, 7 sessions", "Test, 16 sessions", "Selection, 7 sessions"):
        assert sum(line.startswith(title) for line in lines) == 1, title
    for name in ("naive", *ALL):
        rows = [line for line in lines if line.split(" ")[0] == name]
        assert len(rows) == 4, f"{name}: three tables of errors, one of p and latency"
    (judged,) = [line for line in lines if line.startswith("kronos.adapter") and "0.031" in line]
    assert judged.split() == ["kronos.adapter", "0.031", "140", "ms", "240", "ms"]
    (unjudged,) = [line for line in lines if line.startswith("toto.last_month") and "ms" in line]
    assert unjudged.split()[1] == "-"
    assert "Winner: drift: because" in text
    assert "kronos.chosen: base nano, adapter kronos-01234" in text
    assert "temperature 0.7 (searches on these origins: 2)" in " ".join(text.split())
    assert "is left out: it was fitted" in text
    assert text.endswith("months.\n")


def test_the_numbers_are_those_of_the_record() -> None:
    record = compared_record("NVDA", ALL)
    lines = stock_text(record).splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith("Selection, 7")]
    (row,) = [line for line in lines[start:] if line.startswith("kronos.refined ")][:1]
    (scored,) = [
        row
        for row in record["scores"]
        if (row["segment"], row["candidate"]) == ("selection", "kronos.refined")
    ]
    low, high = (f"{100 * scored[name]:+.1f}" for name in ("skill_low", "skill_high"))
    assert row.split()[1:] == [
        f"{scored['mae']:.3f}",
        f"{scored['mae_pct']:.2f}",
        f"{100 * scored['return_mae']:.2f}",
        f"{scored['rmse']:.3f}",
        f"{scored['mase']:.2f}",
        f"{scored['crps']:.3f}",
        f"{scored['coverage_80']:.2f}",
        f"{100 * scored['skill']:+.1f}",
        *(low, "to", high),
    ]


@pytest.mark.parametrize(("scale", "shown"), [(1e-4, "0.0001234"), (1, "1.234"), (1e5, "123400")])
def test_any_price_level_fits_with_four_digits(scale: float, shown: str) -> None:
    record = compared_record("ADA-USD", ALL)
    for row in record["scores"]:
        row |= {"mae": 1.234 * scale, "rmse": 1.5 * scale, "crps": scale}
        row |= {"skill": -9.999, "skill_low": None if row["skill_low"] is None else -12.345}
    lines = stock_text(record).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    rows = [line.split() for line in lines if line.startswith("kronos.last_month")]
    assert [row[1] for row in rows[:3]] == [shown] * 3


def test_a_provisional_month_says_so_and_missing_values_are_dashes() -> None:
    record = compared_record("NVDA", ("kronos.zero_shot", "kronos.adapter"))
    record["provisional"] = True
    for row in record["scores"]:
        row |= dict.fromkeys(("mase", "skill", "skill_low", "skill_high"))
    text = stock_text(record)
    assert "provisional: the month is not over" in text
    assert "95 % interval  " not in text
    (row, *_) = [line for line in text.splitlines() if line.startswith("kronos.adapter")]
    assert row.split().count("-") == 2
    assert stock_text(record) == text
