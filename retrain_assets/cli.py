"""The command line: `retrain run`, `validate`, `demo`, other modules' commands, and `main`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer
from typer import rich_utils
from typer.exceptions import TyperException

from retrain_assets.commands import (
    backtest,
    completing,
    decisions,
    fetch,
    pipeline,
    prune,
    report,
    servers,
    status,
    supplies,
)
from retrain_assets.commands import options as option
from retrain_assets.commands.answers import (
    BAD_INPUT,
    INTERRUPTED,
    Answer,
    alone_on_stdout,
    answered,
)
from retrain_assets.commands.console import opened, wrapped
from retrain_assets.commands.stocks import asked_for, captioned, run_and_show
from retrain_assets.errors import BadInput, RetrainError

EPILOG = """\
The data folder is ./data, or the folder that RETRAIN_HOME names. RETRAIN_THREADS sets the CPU
threads. NO_COLOR turns colours off. `retrain COMMAND --help` has examples, `--json` prints one
object for scripts, and `retrain --install-completion` teaches your shell symbols and months.

Exit codes:

- 0: all stocks that have bars succeeded, and all that were named have bars

- 1: a stock failed, or a file or a summary; the others were done and are shown

- 2: an option or an input cannot be used; nothing was run

- 130: Ctrl-C; the same command goes on where it stopped
"""
# The guide extends the table's epochs by half; without that, this share of them is left.
NOT_EXTENDED = 1 / 1.5
DEMO_SYMBOLS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
DEMO_MONTH = "2023-08"
DEMO_STEPS = 60
DEMO_CONTEXT = 256
DEMO_JOBS = 2
DEMO_PATHS = (5, 10)

app = typer.Typer(
    name="retrain",
    help="Retrain per-stock forecasting adapters month by month, and compare them honestly.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.command()
def run(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    holdout_days: option.HoldoutDays = 7,
    prediction_length: option.PredictionLength = None,
    base: option.Base = None,
    context_length: option.ContextLength = None,
    max_steps: option.MaxSteps = None,
    epochs_scale: option.EpochsScale = 1.0,
    no_extended_epochs: option.NoExtended = False,
    seed: option.Seed = 0,
    warm_start: option.WarmStart = False,
    no_search: option.NoSearch = False,
    grid: option.Grid = None,
    exhaustive: option.Exhaustive = False,
    force: option.Force = False,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Train adapters, search inference parameters, compare, and promote what is better.

    Examples:

    - `retrain run --stocks AAPL NVDA AMD`

    - `retrain run --priority --month 2023-08 --model-type kronos`

    - `retrain run --all --holdout-days 10 --prediction-length 128`

    - `retrain run --stocks AAPL --grid num_samples=5,10 top_k=20,off`

    One stock that fails does not stop the others; the exit code is then 1. An interrupted
    training goes on where it stopped when the same command is given again. What is stored and
    made of the same bars, options, base and code is not computed again, unless with `--force`.
    """
    from retrain_assets.runs import chosen_families
    from retrain_assets.work import Retrain, Search

    home, universe = opened()
    search = Search(grid=option.read_grid(grid or ()), exhaustive=exhaustive)
    families = chosen_families(model_type)
    options = Retrain(
        families=families,
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        bases=option.read_bases(base, families),
        context_length=context_length,
        max_steps=max_steps,
        epochs_scale=epochs_scale * (NOT_EXTENDED if no_extended_epochs else 1.0),
        seed=seed,
        warm_start=warm_start,
        search=None if no_search else search,
        force=force,
    )
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    caption = captioned(asked, seed, search)
    return run_and_show(
        home, chosen, asked, options, caption=caption, device=device, jobs=jobs, quiet=no_progress
    )


@app.command()
def validate(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    holdout_days: option.OtherHoldoutDays = None,
    prediction_length: option.OtherPredictionLength = None,
    grid: option.Grid = None,
    subset: option.Subset = None,
    exhaustive: option.Exhaustive = False,
    upstream_filters: option.UpstreamFilters = False,
    precision: option.Precision = None,
    seed: option.Seed = 0,
    force: option.Force = False,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Search inference parameters of stored adapters, and score the choice once on the test.

    Examples:

    - `retrain validate --stocks SPY NVDA AMD`

    - `retrain validate --stocks SPY --holdout-days 14 --prediction-length 128`

    - `retrain validate --priority --grid temperature=.6,.8,1 top_p=.9,off --exhaustive`

    Without lengths the adapter's own split is used. A longer test leaves fewer sessions to
    choose on; below eight forecasts a stock is refused, and told which `retrain run` would
    serve. One stock that fails does not stop the others; the exit code is then 1.
    """
    from retrain_assets.runs import ALL, chosen_families
    from retrain_assets.work import Search, Validation

    home, universe = opened()
    search = Search(
        grid=option.read_grid(grid or ()),
        subset=subset,
        exhaustive=exhaustive,
        options=_computing(upstream_filters, precision),
        holdout_days=holdout_days,
        prediction_length=prediction_length,
    )
    work = Validation(
        families=chosen_families(model_type),
        search=search,
        seed=seed,
        all_of_them=model_type != ALL,
        force=force,
    )
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    caption = captioned(asked, seed, search)
    return run_and_show(
        home, chosen, asked, work, caption=caption, device=device, jobs=jobs, quiet=no_progress
    )


@app.command()
def demo(stocks: option.Stocks = None, no_progress: option.NoProgress = False) -> Answer:
    """Run everything once on the six bundled stocks, or some of them, on the CPU, in minutes.

    Examples:

    - `retrain demo`

    - `retrain demo --stocks NVDA`

    The same as `retrain run --stocks AAPL AMZN GOOG META NFLX NVDA --month 2023-08 --base nano
    --context-length 256 --max-steps 60 --grid num_samples=5,10 --device cpu --jobs 2`: the policy
    itself would look back on 448 bars and more, take up to 3,500 steps, and the search would draw
    up to 50 paths. The nano bases exist to run the system offline; their forecasts are not for
    trading. One stock takes about a minute.
    """
    from retrain_assets.models.forecaster import families
    from retrain_assets.universe import Selection
    from retrain_assets.work import Retrain, Search

    symbols = tuple(symbol.upper() for symbol in stocks or DEMO_SYMBOLS)
    if others := set(symbols) - set(DEMO_SYMBOLS):
        raise BadInput(
            f"{', '.join(sorted(others))}: not in the demo, which has {', '.join(DEMO_SYMBOLS)}; "
            "for any stock with bars there is `retrain run`"
        )
    home, _ = opened()
    search = Search(grid={"num_samples": DEMO_PATHS})
    options = Retrain(
        families=tuple(families()),
        bases={name: own.default_base for name, own in families().items()},
        context_length=DEMO_CONTEXT,
        max_steps=DEMO_STEPS,
        search=search,
    )
    paths = "/".join(map(str, DEMO_PATHS))
    caption = (
        f"demo preset: {DEMO_MONTH}, base nano, max_steps {DEMO_STEPS}, context {DEMO_CONTEXT}, "
        f"num_samples {paths}, CPU"
    )
    return run_and_show(
        home,
        Selection(symbols),
        DEMO_MONTH,
        options,
        caption=caption,
        device="cpu",
        jobs=DEMO_JOBS,
        quiet=no_progress,
    )


COMMANDS: tuple[Callable[..., object], ...] = (
    *(pipeline.compare, pipeline.pipeline, status.status),
    *(report.report, decisions.analyze, decisions.refine),
    *(decisions.promote, decisions.rollback),
    *(backtest.backtest, decisions.export),
    *(fetch.fetch, supplies.pretrain, servers.ui, servers.mlflow, servers.env),
    prune.prune,
)
app.command("import")(supplies.import_bars)
for command in COMMANDS:
    app.command()(command)


def _computing(upstream_filters: bool, precision: str | None) -> dict[str, str]:
    """What the flags of `validate` come down to, as options of a forecaster."""
    filters = {"compat": "upstream"} if upstream_filters else {}
    return filters | ({"precision": precision} if precision else {})


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; always ends with SystemExit, whose code the help's last lines explain."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    completing.spread_words()
    if "--json" in given:
        raise SystemExit(_told_as_json(given))
    try:
        raise SystemExit(answered(_called(given)).exit_code)
    except RetrainError as error:
        for line in wrapped(f"error: {error}"):
            print(line, file=sys.stderr)
        raise SystemExit(BAD_INPUT) from error
    except TyperException as error:
        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # a usage error, always
        raise SystemExit(BAD_INPUT) from error
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _told_as_json(given: Sequence[str]) -> int:
    """Run a command, print its answer as the only thing on standard output, return its code."""
    command = next((word for word in given if not word.startswith("-")), "")
    with alone_on_stdout():
        try:
            answer = answered(_called(given))
        except RetrainError as error:
            answer = Answer(BAD_INPUT, {"error": str(error)})
        except TyperException as error:
            answer = Answer(BAD_INPUT, {"error": error.format_message()})
        except KeyboardInterrupt:
            answer = answered(INTERRUPTED)
    print(answer.to_json(command))
    return answer.exit_code


def _called(given: Sequence[str]) -> object:
    """What the command returned: an answer, an exit code, or nothing."""
    return app(option.spread_lists(given), prog_name="retrain", standalone_mode=False)


if __name__ == "__main__":
    main()
