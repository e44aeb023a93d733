"""Everything that is logged to MLflow stands in the table of docs/mlflow.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import mlflow
import pytest

from retrain_assets_tests.finished import Finished

TABLE = Path(__file__).parents[2] / "docs" / "mlflow.md"
MLFLOWS_OWN = "mlflow.*"


def documented() -> dict[str, list[str]]:
    """Patterns of names by kind, as the table has them."""
    found: dict[str, list[str]] = {"parameter": [], "metric": [], "tag": []}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) != 6 or not (names := re.findall(r"`([^`]+)`", cells[1])):
            continue
        for kind in found:
            if kind in cells[2]:
                found[kind] += names
    return found


def logged(home_uri: str) -> Iterator[tuple[str, str]]:
    """Kind and name of all that any run has."""
    client = mlflow.MlflowClient(tracking_uri=home_uri)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            yield from (("parameter", name) for name in run.data.params)
            yield from (("metric", name) for name in run.data.metrics)
            yield from (("tag", name) for name in run.data.tags)


@pytest.mark.parametrize("kind", ["parameter", "metric", "tag"])
def test_what_is_logged_is_in_the_table(finished: Finished, kind: str) -> None:
    uri = f"sqlite:///{finished.home.tracking / 'mlflow.db'}"
    names = {name for of, name in logged(uri) if of == kind}
    known = [*documented()[kind], MLFLOWS_OWN]
    assert names, "a run that logs nothing would tell nothing"
    assert {n for n in names if not any(fnmatchcase(n, one) for one in known)} == set()
