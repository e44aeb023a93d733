"""What a command ends with: its exit code, and with `--json` one object for scripts.

The object of a command that runs stocks:

    {"version": 1, "command": "run", "exit_code": 1, "error": null, "month": "2023-08",
     "without_bars": ["NONE"], "files": ["..."], "stocks": {"AAA": {...}, "BBB": {...}}}

`error` is null unless the command as a whole came to nothing (exit code 2: its input; 130: Ctrl-C;
then the other fields may be missing) or a summary was not written (1). `without_bars` are stocks
of --priority or --all that were left out. A stock has

- `status`: `success` or `failed`, then with `errors`, a list of reasons; `run_id`: Dagster's;
- `comparison`: null, or `winner`, `reason`, `cut`, `provisional`, `bars`, `difficulty`,
  `holdout_days`, `prediction_length`, `notes` and `test`: by `holdout` and `plan` (the two
  lengths), then by candidate (`naive`, `drift`, `auto_ets`, `kronos.zero_shot`, `kronos.adapter`,
  `kronos.chosen`, ...) `mae`, `mae_pct`, `skill_pct` and `origins`;
- `params`: by family `chosen`, `default`, `selection_mae_pct`, `test_mae_pct`, `default_mae_pct`,
  `naive_mae_pct`, `gain_pct`, `shrinkage_pct`, `spa_p_value`;
- `decision`: null, or `live`, `in_production`, `reason` and `families`: by name `promoted` and
  `reason`;
- `confirmation`: null, or the look on a longer window.

Numbers are finite or null. Fields may be added; none changes its meaning within a version.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from retrain_assets.evaluation.stock_record import StockRecord
    from retrain_assets.runs import Outcome

VERSION = 1
SUCCESS, FAILED = 0, 1
BAD_INPUT = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class Answer:
    """What came of a command. content: fields of the object that `--json` prints."""

    exit_code: int
    content: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, command: str) -> str:
        """One JSON object, indented; what is not a finite number is null."""
        head = {"version": VERSION, "command": command, "exit_code": self.exit_code, "error": None}
        return json.dumps(_finite(head | dict(self.content)), indent=2, allow_nan=False)


def answered(ended: object) -> Answer:
    """The answer of a command out of what it returned: an answer, an exit code, or nothing."""
    if isinstance(ended, Answer):
        return ended
    code = ended if isinstance(ended, int) else SUCCESS
    return Answer(code, {"error": "interrupted"} if code == INTERRUPTED else {})


@contextlib.contextmanager
def alone_on_stdout() -> Iterator[None]:
    """Keep standard output for the answer: whatever is printed inside goes to standard error."""
    own = sys.stdout
    own.flush()
    kept = os.dup(1)
    os.dup2(2, 1)  # for what writes past Python, and for processes that are started
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = own
        os.dup2(kept, 1)
        os.close(kept)


def stock_answers(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Any]]:
    """What came of stocks, by symbol; see the module's first lines."""
    return {outcome.symbol: _stock(outcome) for outcome in outcomes}


def _stock(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": "failed" if outcome.failures else "success",
        "errors": outcome.failures,
        "run_id": outcome.run_id or None,
        "comparison": None if outcome.record is None else compared(outcome.record),
        "params": {name: searched(record) for name, record in outcome.params.items()},
        "decision": None if outcome.champion is None else decided(outcome.champion),
        "confirmation": None if outcome.confirmation is None else dict(outcome.confirmation),
    }


def compared(record: StockRecord) -> dict[str, Any]:
    """A comparison's record without its losses and versions."""
    from retrain_assets.evaluation.stock_record import scored

    same = ("winner", "reason", "cut", "provisional", "bars", "difficulty", "holdout_days", "notes")
    told = {name: cast("Mapping[str, Any]", record)[name] for name in same}
    test = {
        "holdout": scored(record, "test", "holdout"),
        "plan": scored(record, "test", "plan"),
    }
    return told | {
        "prediction_length": record["plan_horizon"],
        "test": {
            scope: {name: _score(row) for name, row in rows.items()} for scope, rows in test.items()
        },
    }


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    skill = row["skill"]
    return {
        "mae": row["mae"],
        "mae_pct": row["mae_pct"],
        "skill_pct": None if skill is None else 100 * skill,
        "origins": row["origins"],
    }


def searched(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a search chose, and how it errs."""
    from retrain_assets.evaluation.comparison import NAIVE
    from retrain_assets.evaluation.search_results import CHOSEN, DEFAULT

    found = record["summary"]
    return {
        "chosen": record["chosen"],
        "default": record["default"],
        "selection_mae_pct": found["selection"][CHOSEN]["mae_pct"],
        "test_mae_pct": found["test"][CHOSEN]["mae_pct"],
        "default_mae_pct": found["test"][DEFAULT]["mae_pct"],
        "naive_mae_pct": found["test"][NAIVE]["mae_pct"],
        "gain_pct": found["expected_gain_pct"],
        "shrinkage_pct": found["shrinkage_pct"],
        "spa_p_value": found["spa_p_value"],
    }


def decided(record: Mapping[str, Any]) -> dict[str, Any]:
    """A champion record's decisions in short."""
    pointer = record["pointer"]
    return {
        "live": record["live"],
        "in_production": pointer["to"],
        "reason": pointer["decision"]["reason"],
        "families": {
            name: {
                "promoted": state["decision"]["promote"],
                "reason": state["decision"]["reason"],
            }
            for name, state in record["families"].items()
        },
    }


def _finite(value: Any) -> Any:
    """The value as JSON has it: numbers of numpy as Python's, and none that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
