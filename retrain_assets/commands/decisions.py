"""Commands about what was trained: what got worse, what to try next, what is in production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrain_assets.commands import completing
from retrain_assets.commands import options as option
from retrain_assets.commands.answers import FAILED, SUCCESS, Answer, decided
from retrain_assets.commands.console import dagster_instance, opened, output, say
from retrain_assets.commands.stocks import asked_for, run_and_show
from retrain_assets.errors import BadInput, RetrainError

if TYPE_CHECKING:
    from retrain_assets.home import Home

Sessions = Annotated[
    int | None,
    typer.Option(
        "--holdout-days", min=1, help="Sessions at the month's end to forecast anew, such as 28."
    ),
]
Rungs = Annotated[int, typer.Option(min=1, help="Rungs of each family's ladder to run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the decisions, and take none.")]
Rules = Annotated[
    list[str] | None,
    typer.Option("--rule", metavar="NAME=VALUE", help="A threshold of the decision."),
]
BackTo = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="YYYY-MM",
        help="Month whose decision is put back.",
        autocompletion=completing.months,
    ),
]
Symbol = Annotated[
    str,
    typer.Argument(metavar="SYMBOL", help="The stock.", autocompletion=completing.symbols),
]
Target = Annotated[
    Path | None, typer.Option("--to", help="Folder to write; by default export in the data folder.")
]


def analyze(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    holdout_days: Sessions = None,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Say which stocks got worse, failed, are missing or stale, and what to do about it.

    Examples:

    - `retrain analyze`

    - `retrain analyze --stocks ADSK TSLA --holdout-days 28`

    The report is of the whole month; --stocks, --priority and --model-type choose which part of it
    is shown. With --holdout-days the stocks are forecast anew over a longer window than the test's
    three origins, which confirms a suspicion or ends it. The exit code says whether that could be
    done, not what was found.
    """
    from retrain_assets.followups import Confirm
    from retrain_assets.runs import chosen_families

    of_families = chosen_families(model_type)
    home, universe = opened()
    everyone = everything or not (stocks or priority or holdout_days)
    chosen, asked = asked_for(home, universe, stocks, priority, everyone, month)
    if holdout_days is None:
        answer = Answer(SUCCESS, {"month": asked, "files": _make_report(home, asked)})
    else:
        answer = run_and_show(
            home,
            chosen,
            asked,
            Confirm(holdout_days),  # which makes the report as well
            caption=f"month {asked}, last {holdout_days} sessions",
            device=device,
            jobs=jobs,
            quiet=no_progress,
        )
    if answer.content.get("error"):  # the report may be an earlier one
        return answer
    analysis = analysis_of(home, asked, None if everyone else chosen.symbols, of_families)
    print_analysis(analysis)
    return replace(answer, content={**answer.content, "analysis": analysis})


def refine(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    rungs: Rungs = 1,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Try the next rung of the ladder on stocks that do not do well, then compare and decide.

    Examples:

    - `retrain refine --stocks TSLA`

    - `retrain refine --stocks TSLA COIN --model-type kronos --rungs 3`

    Each rung changes one thing of the stock's plan: loss, learning rate, rank, dropout, epochs.
    The ladder ends by itself. Everything that was tried counts in the test that decides.
    """
    from retrain_assets.followups import Refine
    from retrain_assets.runs import chosen_families

    home, universe = opened()
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    return run_and_show(
        home,
        chosen,
        asked,
        Refine(chosen_families(model_type), rungs),
        caption=f"month {asked}, {rungs} more " + ("rung" if rungs == 1 else "rungs"),
        device=device,
        jobs=jobs,
        quiet=no_progress,
    )


def promote(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    dry_run: DryRun = False,
    rule: Rules = None,
    device: option.DeviceName = "auto",
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Decide anew which versions are champions and what is in production.

    Examples:

    - `retrain promote --all --dry-run`

    - `retrain promote --stocks NVDA --rule smallest_gain=0.02`

    `retrain run` decides as well. Only a stock's latest final month moves what is live.
    """
    from retrain_assets.followups import Promote

    home, universe = opened()
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    work = Promote(rules=_read_rules(rule or []))
    caption = f"month {asked}"
    if dry_run:
        work.check(home, device)
        return _show_dry_run(home, chosen.symbols, asked, work.rules, device)
    return run_and_show(
        home, chosen, asked, work, caption=caption, device=device, jobs=1, quiet=no_progress
    )


def rollback(
    stock: Symbol,
    to: BackTo,
    device: option.DeviceName = "auto",
    as_json: option.AsJson = False,
) -> Answer:
    """Put back what an earlier month decided for a stock: champions, pointer, aliases, export.

    Example: `retrain rollback NVDA --to 2023-06`

    It holds until the stock is decided on again. On the web page: materialize the `champion` of the
    month that is live with `rollback_to` in its configuration, then `guide_files` of that month.
    """
    from retrain_assets.evaluation.production import ProductionStore
    from retrain_assets.followups import Promote

    home, universe = opened()
    chosen, _ = asked_for(home, universe, [stock], False, False, None)
    (symbol,) = chosen.symbols
    live = ProductionStore(home.production).live(symbol)
    if live is None:
        raise BadInput(f"nothing is in production for {symbol}: there is nothing to put back")
    asked = str(live["month"])
    return run_and_show(
        home,
        chosen,
        asked,
        Promote(rollback_to=to),
        caption=f"month {asked}, back to {to}",
        device=device,
        jobs=1,
        quiet=True,
    )


def export(to: Target = None, month: option.Month = None) -> None:
    """Write the retraining guide's files for what is in production.

    Example: `retrain export --to /srv/models`
    """
    from retrain_assets.export.tree import export_tree

    home, _ = opened()
    target = to or home.export
    files = export_tree(target, home=home, month=month)
    say(output(), f"{len(files)} files in {target}")


def _show_dry_run(
    home: Home, symbols: Sequence[str], month: str, rules: Mapping[str, float], device: str
) -> Answer:
    """Print what would be decided; nothing is written."""
    from retrain_assets.defs.champion import PromotionConfig, in_words, preview
    from retrain_assets.defs.resources import build_resources

    console, resources = output(), build_resources(home, device=device)
    config = PromotionConfig(rules=dict(rules), seed=0, rollback_to=None, live=True)
    found: dict[str, dict[str, Any]] = {}
    for symbol in symbols:
        try:
            record = preview(month, symbol, config, resources)
            lines = in_words(record)
            found[symbol] = {"status": "success", "errors": [], "decision": decided(record)}
        except RetrainError as error:
            lines = [f"failed: {error}"]
            found[symbol] = {"status": "failed", "errors": [str(error)], "decision": None}
        for line in lines:
            say(console, f"{symbol:<6} {line}", indent=7)
    say(console, "A dry run: nothing was decided.")
    failed = any(stock["errors"] for stock in found.values())
    content = {"month": month, "dry_run": True, "stocks": found, "files": []}
    return Answer(FAILED if failed else SUCCESS, content)


def _make_report(home: Home, month: str) -> list[str]:
    """Materialize the month's regression report; returns its file, in a list."""
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions

    with dagster_instance(home) as instance:
        made = runs.materialize(build_definitions(home), instance, month, ["regression_report"], {})
    return [str(file) for file in made]


def analysis_of(
    home: Home, month: str, symbols: Sequence[str] | None, families: Sequence[str]
) -> dict[str, Any]:
    """What the month's latest report says of some stocks (None: of all) and families."""
    from retrain_assets.defs.regression_report import JSON_FILE
    from retrain_assets.defs.resources import build_resources
    from retrain_assets.evaluation.regression_excerpt import excerpt
    from retrain_assets.files import read_json
    from retrain_assets.runs import ALL, chosen_families

    folder: Path = build_resources(home)["reports"].regressions(month)
    analysis: dict[str, Any] = read_json(folder / JSON_FILE)
    if symbols is None and tuple(families) == chosen_families(ALL):
        return analysis
    rows = [row for kind in analysis.values() if isinstance(kind, list) for row in kind]
    known = {row["symbol"] for row in rows if isinstance(row, dict)}
    return excerpt(analysis, known if symbols is None else symbols, families)


def print_analysis(analysis: Mapping[str, Any]) -> None:
    """Print a month's analysis, or a part of it, as the report has it."""
    from retrain_assets.evaluation.regression_text import render_analysis

    output().print(render_analysis(analysis), markup=False, highlight=False, soft_wrap=True)


def _read_rules(texts: list[str]) -> dict[str, float]:
    rules: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            rules[name] = float(value)
        except ValueError as error:
            raise BadInput(f"--rule {text}: write a name and a number, name=0.02") from error
        if not (name and equals):
            raise BadInput(f"--rule {text}: write a name and a number, name=0.02")
    return rules
