"""What a shell completes, asked for as the shells' own scripts do, and that it is quick."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retrain_assets.commands import completing
from retrain_assets.models.forecaster import families
from retrain_assets_tests.installed import UNIVERSE

ASK = "from retrain_assets.cli import main; main()"
# Each of them takes longer to import than a person waits for a word.
HEAVY = ("torch", "dagster", "mlflow", "pandas", "peft")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a universe and the name of one more symbol that has bars."""
    (tmp_path / "universe.yaml").write_text(UNIVERSE, encoding="utf-8")
    (tmp_path / "market").mkdir()
    (tmp_path / "market" / "NEW.parquet").touch()
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setenv("RETRAIN_HOME", str(tmp_path))
    return tmp_path


def asked(shell: str, *words: str, home: Path) -> list[str]:
    """What is printed for a line whose last word is being typed."""
    line = {
        "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
        "fish": {
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
    }[shell]
    told = {"_RETRAIN_COMPLETE": f"complete_{shell}", "RETRAIN_HOME": str(home)}
    ran = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | told | line,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.split()


def test_every_shell_completes_a_second_symbol(folder: Path) -> None:
    line = ("retrain", "run", "--model-type", "kronos", "--stocks", "AAA")
    assert asked("bash", *line, "", home=folder) == ["AAA", "BBB", "SHORT", "NONE", "COIN", "NEW"]
    assert asked("bash", *line, "BBB", "N", home=folder) == ["NONE", "NEW"]
    assert asked("zsh", *line, "SH", home=folder) == ["_arguments", "'*:", ':(("SHORT"))\'']
    assert asked("fish", *line, "SH", home=folder) == ["SHORT"]


def test_what_is_amiss_completes_nothing_and_says_nothing(folder: Path) -> None:
    assert asked("bash", "retrain", "run", "--stocks", "A", home=folder / "nowhere") == []
    assert asked("bash", "retrain", "run", "--stocks", "A", '"B', home=folder) == []


def test_values_begin_with_what_was_typed(folder: Path) -> None:
    assert completing.symbols("A") == ["AAA", "BBB", "SHORT", "NONE", "COIN", "NEW"]
    assert completing.symbols("AAA,")[:2] == ["AAA,AAA", "AAA,BBB"]
    months = completing.months("")
    assert months[-1] == "2015-01"
    assert months == sorted(set(months), reverse=True)
    assert {"2015-12", "2016-01", "2023-08"} <= set(months)
    assert completing.families("") == [*sorted(families()), "both"]


def test_bases_are_those_of_the_tables_and_of_the_file(folder: Path) -> None:
    (folder / "checkpoints" / "bases.yaml").write_text("kronos:\n  mine: {model: a}\n")
    names = completing.bases("")
    assert {"nano", "22m", "mine", "published", "kronos=", "toto="} <= set(names)
    assert "kronos=mine" in completing.bases("kronos=")
    assert "toto=mine" not in completing.bases("toto=")
    assert "kronos=mine,toto=22m" in completing.bases("kronos=mine,toto=")


@pytest.mark.parametrize("name", families())
def test_the_bundled_base_of_every_family_is_completed(folder: Path, name: str) -> None:
    assert f"{name}={families()[name].default_base}" in completing.bases(f"{name}=")


def test_an_unreadable_universe_completes_nothing(folder: Path) -> None:
    (folder / "universe.yaml").write_text("stocks: {")
    assert completing.symbols("") == completing.months("") == []


def test_a_line_is_left_alone_unless_a_shell_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "retrain run --stocks A B")
    completing.spread_words()
    assert os.environ["COMP_WORDS"] == "retrain run --stocks A B"


def test_the_command_line_imports_nothing_heavy_before_a_command_runs() -> None:
    code = f"import sys, retrain_assets.cli; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
