"""Commands about what was trained: what got worse, what to try next, what is in production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrain_assets import options as option
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.opened import dagster_instance, opened, output
from retrain_assets.running import asked_for, run_and_show

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
    str, typer.Option("--to", metavar="YYYY-MM", help="Month whose decision is put back.")
]
Target = Annotated[
    Path | None, typer.Option("--to", help="Folder to write; by default export in the data folder.")
]


def analyze(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    holdout_days: Sessions = None,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
) -> None:
    """Say which stocks got worse, failed, are missing or stale, and what to do about it.

    Examples:

    - `retrain analyze`

    - `retrain analyze --stocks ADSK TSLA --holdout-days 28`

    With --holdout-days the stocks are forecast anew over a longer window than the test's three
    origins, which confirms a suspicion or ends it.
    """
    from retrain_assets.followups import Confirm

    home, universe = opened()
    if holdout_days is None:
        one_of_them = bool(stocks) or priority
        everyone = everything or not one_of_them
        _, asked = asked_for(home, universe, stocks, priority, everyone, month)
        _make_report(home, asked)
    else:
        chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
        run_and_show(
            home,
            chosen,
            asked,
            Confirm(holdout_days),  # which makes the report as well
            caption=f"month {asked}, last {holdout_days} sessions",
            device=device,
            jobs=jobs,
            quiet=no_progress,
        )
    output().print(_report(home, asked), markup=False, highlight=False, soft_wrap=True)


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
) -> None:
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
    run_and_show(
        home,
        chosen,
        asked,
        Refine(chosen_families(model_type), rungs),
        caption=f"month {asked}, {rungs} more rungs",
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
) -> None:
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
        _show_dry_run(home, chosen.symbols, asked, work.rules, device)
        return
    run_and_show(
        home, chosen, asked, work, caption=caption, device=device, jobs=1, quiet=no_progress
    )


def rollback(
    stock: Annotated[str, typer.Argument(metavar="SYMBOL", help="The stock.")],
    to: BackTo,
    device: option.DeviceName = "auto",
) -> None:
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
    run_and_show(
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
    from retrain_assets.export import export_tree

    home, _ = opened()
    target = to or home.export
    files = export_tree(target, home=home, month=month)
    output().print(f"{len(files)} files in {target}", highlight=False, soft_wrap=True)


def _show_dry_run(
    home: Home, symbols: Sequence[str], month: str, rules: Mapping[str, float], device: str
) -> None:
    """Print what would be decided; nothing is written."""
    from retrain_assets.defs.promotion import PromotionConfig, in_words, preview
    from retrain_assets.defs.resources import build_resources

    console, resources = output(), build_resources(home, device=device)
    config = PromotionConfig(rules=dict(rules), seed=0, rollback_to=None, live=True)
    failed = False
    for symbol in symbols:
        try:
            record = preview(month, symbol, config, resources)
            lines = in_words(record)
        except RetrainError as error:
            failed, lines = True, [f"failed: {error}"]
        for line in lines:
            console.print(f"{symbol:<6} {line}", markup=False, highlight=False, soft_wrap=True)
    console.print("A dry run: nothing was decided.", highlight=False)
    if failed:
        raise typer.Exit(1)


def _make_report(home: Home, month: str) -> None:
    """Materialize the month's regression report."""
    from retrain_assets import runs
    from retrain_assets.definitions import build_definitions

    with dagster_instance(home) as instance:
        runs.materialize(build_definitions(home), instance, month, ["regression_report"], {})


def _report(home: Home, month: str) -> str:
    """The month's regression report as it was made last."""
    from retrain_assets.defs.regression import TEXT_FILE
    from retrain_assets.defs.resources import build_resources

    folder: Path = build_resources(home)["reports"].regressions(month)
    return (folder / TEXT_FILE).read_text(encoding="utf-8")


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
