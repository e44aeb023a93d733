"""The command `retrain report`: a month on one page, made from what is stored."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import SUCCESS, Answer
from retrain_assets.commands.console import dagster_instance, opened, output, say
from retrain_assets.commands.stocks import asked_for

if TYPE_CHECKING:
    import dagster as dg

    from retrain_assets.home import Home

Open = Annotated[bool, typer.Option("--open", help="Show it in the browser.")]

REPORT = ("regression_report", "month_report")


def report(
    month: option.Month = None,
    open_it: Open = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Write the report on a month, one HTML file that needs nothing else, and say what it says.

    Examples:

    - `retrain report`

    - `retrain report --month 2023-08 --open`

    `retrain run` writes it too; this command makes it anew, after a decision or a rollback for
    instance. It computes nothing but what it shows, and looks anew at what got worse, failed or is
    stale. The file reads on a phone and on paper, and can be sent as it is.
    """
    home, universe = opened()
    _, asked = asked_for(home, universe, None, False, True, month)
    file, summary = _made(home, asked)
    console = output()
    for line in summary:
        say(console, line, indent=2)
    say(console, str(file))
    shown = open_it and webbrowser.open(file.as_uri())
    if open_it and not shown:
        say(console, "No browser was found: open the file yourself.", style="yellow")
    content = {"month": asked, "files": [str(file)], "summary": summary, "opened": shown}
    return Answer(SUCCESS, content)


def _made(home: Home, month: str) -> tuple[Path, list[str]]:
    """Materialize the report of a month; returns its file, and its sentences."""
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions

    with dagster_instance(home) as instance:
        made = runs.materialize(build_definitions(home), instance, month, REPORT, {})
        return made[-1], _summary(instance, month)


def _summary(instance: dg.DagsterInstance, month: str) -> list[str]:
    """The sentences that the latest report of a month was materialized with."""
    import dagster as dg

    from retrain_assets.defs.month_report import SUMMARY, month_report

    wanted = dg.AssetRecordsFilter(asset_key=month_report.key, asset_partitions=[month])
    (latest,) = instance.fetch_materializations(wanted, limit=1).records
    made = latest.asset_materialization
    text = made.metadata[SUMMARY].value if made else ""
    return str(text).replace("**", "").splitlines()
