"""The command `retrain prune`: what has served is shown, and with `--apply` deleted.

What goes is renamed into a hidden folder first and deleted from there, so that nobody ever sees
half of it; a prune that was killed is finished by the next.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import SUCCESS, Answer
from retrain_assets.commands.console import dagster_instance, opened, output, say
from retrain_assets.errors import BadInput

if TYPE_CHECKING:
    from retrain_assets.home import Home
    from retrain_assets.operation import Retention
    from retrain_assets.retention import Needed, Removal
    from retrain_assets.retention_runs import OldRun, RunHistory, TrackedHistory


@dataclass
class Pruned:
    """What goes, or has gone.

    files: of the data folder. runs: of Dagster. tracked: of MLflow. kept: what was left alone,
    stocks or MLflow, and why.
    """

    files: list[Removal] = field(default_factory=list)
    runs: list[OldRun] = field(default_factory=list)
    tracked: list[OldRun] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(one.size for one in self.files) + sum(r.size for r in self.runs + self.tracked)

    def to_json(self, home: Home) -> dict[str, Any]:
        """It as JSON values, paths relative to the data folder."""
        runs = {"runs": self.runs, "mlflow_runs": self.tracked}
        return {
            "bytes": self.size,
            "files": [
                {
                    "path": _named(one.path, home),
                    "kind": one.kind,
                    "reason": one.reason,
                    "bytes": one.size,
                }
                for one in self.files
            ],
            **{
                name: [{"id": one.id, "reason": one.reason, "bytes": one.size} for one in old]
                for name, old in runs.items()
            },
            "left_alone": self.kept,
        }


def prune(
    apply: Annotated[
        bool, typer.Option("--apply", help="Delete it; without this it is only shown.")
    ] = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Show what has served, with sizes and reasons, and delete it with `--apply`.

    Examples:

    - `retrain prune`

    - `retrain prune --apply`

    How much stays says `operation.retention` in universe.yaml: `months`, counted back from a
    stock's last one, and `run_days` of run history. What is in production, was or can be put back
    by `retrain rollback` always stays, and so does whatever is not understood. A stock of which a
    run is under way is left alone.
    """
    from retrain_assets.defs.resources import build_resources
    from retrain_assets.retention_runs import RunHistory, TrackedHistory

    home, universe = opened()
    tracked = TrackedHistory(build_resources(home)["tracking"])
    with dagster_instance(home) as instance:
        found = pruned(
            home,
            universe.operation.retention,
            RunHistory(instance),
            tracked,
            now=dt.datetime.now(dt.UTC),
            apply=apply,
        )
    _show(found, home, apply, freed=tracked.can_free)
    return Answer(SUCCESS, {"applied": apply, **found.to_json(home)})


def pruned(
    home: Home,
    retention: Retention,
    runs: RunHistory,
    tracked: TrackedHistory,
    *,
    now: dt.datetime,
    apply: bool,
) -> Pruned:
    """Decide what goes, and delete it if `apply`; each stock under its own lock then."""
    from retrain_assets import retention as rules
    from retrain_assets.defs.outages import StoreAway

    found, keep = Pruned(), dict[str, "Needed"]()
    if apply:
        empty_trash(home)
    busy = runs.unfinished_stocks()
    for symbol in rules.stocks(home):
        if symbol in busy:
            found.kept[symbol] = "a run of it waits or is under way"
            continue
        try:
            with _locked(home, symbol) if apply else contextlib.nullcontext():
                keep[symbol] = rules.needed(home, symbol, retention)
                going = list(rules.of_stock(home, symbol, keep[symbol], now))
                found.files += going
                if apply:
                    discard(home, going)
        except BadInput as error:
            keep.pop(symbol, None)
            found.kept[symbol] = str(error)
    # What is shared goes by all stocks; those that were left alone might need any of it.
    shared = [] if found.kept else list(rules.of_months(home, keep.values()))
    shared += rules.by_age(home, retention, now)
    found.files += shared
    found.runs += runs.old(retention.run_days, now)
    try:
        found.tracked += tracked.old(keep) if _is_there(tracked, home) else ()
    except StoreAway as error:
        found.kept["MLflow"] = str(error)
    if apply:
        discard(home, shared)
        for run in found.runs:
            runs.delete(run.id)
        if found.tracked:
            tracked.delete([run.id for run in found.tracked])
        empty_trash(home)
    return found


def discard(home: Home, removals: Iterable[Removal]) -> None:
    """Take files and folders out of sight, each in one step; `empty_trash` deletes them."""
    from retrain_assets.retention import TRASH

    for removal in removals:
        # Below the folder it is in, which may lie on another disk than the rest.
        area = home.root / removal.path.relative_to(home.root).parts[0]
        trash = area / TRASH
        trash.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # somebody else has taken it away
            removal.path.rename(trash / f"{uuid.uuid4().hex}-{removal.path.name}")


def empty_trash(home: Home) -> None:
    """Delete what was taken out of sight, also by a prune that was killed."""
    from retrain_assets.retention import TRASH

    for trash in home.root.glob(f"*/{TRASH}"):
        shutil.rmtree(trash)


def _locked(home: Home, symbol: str) -> contextlib.AbstractContextManager[None]:
    """Nothing is decided on about a stock meanwhile."""
    from retrain_assets.evaluation.production import ProductionStore

    return ProductionStore(home.production).lock(symbol)


def _is_there(tracked: TrackedHistory, home: Home) -> bool:
    """Whether there is anything to ask: looking must not create MLflow's database."""
    return tracked.is_elsewhere or (home.tracking / "mlflow.db").exists()


def _show(found: Pruned, home: Home, apply: bool, *, freed: bool) -> None:
    console = output()
    for kind, lines in _lines(found, home):
        say(console, f"{kind}: {len(lines)}")
        for line in lines:
            say(console, f"  {line}", indent=4)
    for symbol, why in found.kept.items():
        say(console, f"{symbol} is left alone: {why}", indent=2)
    count = len(found.files) + len(found.runs) + len(found.tracked)
    done = "deleted" if apply else "would go; `retrain prune --apply` deletes it"
    say(console, f"{count} in all, {decimal(found.size)}: {done}" if count else "nothing to do")
    if found.tracked and not freed:
        say(console, "MLflow's server keeps deleted runs until `mlflow gc` is run there", indent=2)


def _lines(found: Pruned, home: Home) -> Iterator[tuple[str, Sequence[str]]]:
    """What goes, by its kind, a line each."""
    kinds = dict.fromkeys(one.kind for one in found.files)
    for kind in kinds:
        yield (
            kind,
            [
                f"{_named(one.path, home)} ({decimal(one.size)}): {one.reason}"
                for one in found.files
                if one.kind == kind
            ],
        )
    for kind, runs in (("run of Dagster", found.runs), ("run of MLflow", found.tracked)):
        if runs:
            yield kind, [f"{one.id} ({decimal(one.size)}): {one.reason}" for one in runs]


def _named(path: Path, home: Home) -> str:
    return str(path.relative_to(home.root))
