"""The analysis as text: what the guide's output says, within 100 columns, and nothing cut off."""

from __future__ import annotations

import shlex

from retrain_assets.evaluation.regression import StockFacts, regression_analysis
from retrain_assets.evaluation.regression_text import render_analysis
from retrain_assets_tests.evaluation.judged import MONTH, champion, comparison, confirmation
from retrain_assets_tests.evaluation.test_remedies import suspect, worse


def text(*stocks: StockFacts) -> str:
    found = render_analysis(regression_analysis(MONTH, stocks))
    assert not found.endswith("\n")
    assert max(map(len, found.splitlines())) <= 100
    return found


def test_what_is_worse_stands_as_in_the_guide() -> None:
    decided = champion({"kronos.candidate": 1.8, "kronos.incumbent": 2.0})
    lines = text(
        worse("ADSK", odd_bars=("volume is 0 in 12 rows",), champion=decided), worse("BRK.B", 0.4)
    ).splitlines()
    assert lines[0].endswith("2 of 2 stocks compared, 3 comparisons")
    found = lines.index(
        "Found 2 stocks with worse performance (one-sided p below 0.05 after Holm's adjustment):"
    )
    assert lines[found + 2] == (
        "  BRK.B - last_month: 4.00% → candidate: 4.80% (+0.80 points, +20.0%) [kronos.adapter]"
    )
    row = lines.index(
        "  ADSK  - last_month: 4.00% → candidate: 4.40% (+0.40 points, +10.0%) [kronos.adapter]"
    )
    assert "26 origins of 7 sessions, p below 0.001, " in lines[row + 1]
    assert lines[row + 1].endswith("test (3 origins) 4.00% → 4.40%, not promoted")
    assert lines[row + 2] == "          * odd bars: volume is 0 in 12 rows"
    advice = lines.index("Recommendations:")
    assert lines[advice + 1] == (
        "  retrain refine --stocks BRK.B ADSK --month 2023-08 --model-type kronos"
    )


def test_suspects_are_not_counted_as_worse() -> None:
    found = text(suspect("SPY"))
    assert "Found 0 stocks with worse performance." in found
    assert "1 stock to look at" in found
    assert "sessions, p 0.35, test" in found
    assert "retrain analyze --stocks SPY --month 2023-08 --holdout-days 28" in found


def test_what_a_longer_holdout_showed_stands_beside_the_test() -> None:
    found = " ".join(text(suspect("SPY", confirmation=confirmation(3.1))).split())
    assert "test (3 origins) 4.00% → 4.04%, longer holdout (28 sessions) +3.1%" in found


def test_nothing_compared_and_nothing_wrong_are_told_apart() -> None:
    empty = text()
    assert "Nothing was compared" in empty
    assert "Found" not in empty
    fine = text(
        StockFacts("A", comparison({"kronos.adapter": 1.9, "kronos.last_month": 2.0})),
        StockFacts("B"),
    )
    assert "Found 0 stocks with worse performance." in fine
    assert "Not compared: B" in fine
    assert "Recommendations" not in fine


def test_errors_are_told_in_full() -> None:
    error = "the training loss is no longer finite\n" + " ".join(["word"] * 60) + "\n" + "x" * 300
    found = text(
        StockFacts("A", failures={"kronos_adapter": error}),
        StockFacts("B", missing=("comparison",), stale={"kronos_params": "other bars"}),
        StockFacts("C", vanished="not in the universe any more"),
    )
    assert "  A kronos_adapter: the training loss is no longer finite\n" in found
    assert found.count("word") == 60
    assert found.count("x") >= 300
    assert "  B: comparison\n" in found
    assert "  B kronos_params: other bars\n" in found
    assert "  C: not in the universe any more" in found


def test_a_long_command_can_be_copied_as_it_stands() -> None:
    symbols = [f"LONG-NAME-{i:02d}" for i in range(30)]
    found = text(*(StockFacts(symbol, missing=("comparison",)) for symbol in symbols))
    command = found[found.index("  retrain run") :]
    assert shlex.split(command.replace("\\\n", "")) == [
        *("retrain", "run", "--stocks", *symbols, "--month", "2023-08"),
    ]
    assert command.count(" \\\n") >= 3
