"""Calling the command line as its entry point does, for tests of what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retrain_assets import cli

QUICK = ["--model-type", "kronos", "--base", "tiny", "--max-steps", "3", "--device", "cpu"]
GRID = ["--grid", "num_samples=2,4", "temperature=.6,1", "top_k=3,off", "top_p=off"]


class Told(str):
    """What a command printed, whatever the stream, on one line."""

    code: int


@pytest.fixture
def retrain(capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line as the entry point does."""

    def call(*arguments: str) -> Told:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        told = Told(" ".join((out + err).split()))
        told.code = int(ended.value.code or 0)
        return told

    return call


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line with --json; returns the object it prints and what else it shows."""

    def call(*arguments: str) -> tuple[dict[str, Any], str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--json"])
        out, err = capsys.readouterr()
        told: dict[str, Any] = json.loads(out)
        assert (told["version"], told["exit_code"]) == (1, ended.value.code)
        return told, err

    return call
