"""What `--json` prints: one object of JSON's own values, and nothing beside it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from retrain_assets.commands.answers import FAILED, INTERRUPTED, SUCCESS, Answer, answered

NOISY = """\
import os, subprocess
from retrain_assets.commands.answers import Answer, alone_on_stdout

with alone_on_stdout():
    print("from Python")
    os.write(1, b"past Python\\n")
    subprocess.run(["echo", "from a process"])
print(Answer(0, {"month": "2023-08"}).to_json("run"))
"""


def test_an_answer_holds_finite_numbers_or_null() -> None:
    content = {
        "error": "a summary",
        "values": [float("nan"), np.float64("inf"), np.float64(0.5), np.int64(3), True, None],
        "nested": {"AAA": ({"skill": float("-inf")},)},
    }
    told = json.loads(Answer(FAILED, content).to_json("run"))
    assert told == {
        "version": 1,
        "command": "run",
        "exit_code": 1,
        "error": "a summary",
        "values": [None, None, 0.5, 3, True, None],
        "nested": {"AAA": [{"skill": None}]},
    }


def test_what_a_command_returned_becomes_an_answer() -> None:
    own = Answer(FAILED, {"month": "2023-08"})
    assert answered(own) is own
    assert answered(None) == Answer(SUCCESS)
    assert answered(1).exit_code == FAILED
    assert answered(INTERRUPTED) == Answer(INTERRUPTED, {"error": "interrupted"})


def test_nothing_but_the_answer_reaches_standard_output() -> None:
    ran = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["month"] == "2023-08"
    assert {"from Python", "past Python", "from a process"} == set(ran.stderr.splitlines())
