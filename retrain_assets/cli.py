"""The command line `retrain`: all commands put together, and how each of them ends."""

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
    demo,
    fetch,
    pipeline,
    prune,
    report,
    run,
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
from retrain_assets.commands.console import wrapped
from retrain_assets.errors import RetrainError

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

app = typer.Typer(
    name="retrain",
    help="Retrain per-stock forecasting adapters month by month, and compare them honestly.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


COMMANDS: dict[str, tuple[Callable[..., object], ...]] = {
    "Begin": (demo.demo,),
    "Every month": (run.run, pipeline.pipeline, run.validate, pipeline.compare),
    "Look": (status.status, report.report, decisions.analyze, backtest.backtest),
    "Decide": (decisions.refine, decisions.promote, decisions.rollback, decisions.export),
    "Supply": (supplies.import_bars, fetch.fetch, supplies.pretrain),
    "Serve and tidy up": (servers.ui, servers.mlflow, servers.env, prune.prune),
}
"""The commands by the heading below which the help lists them."""
for heading, commands in COMMANDS.items():
    for command in commands:
        name = command.__name__.removesuffix("_bars")  # `import` is no name of a function
        app.command(name, rich_help_panel=heading)(command)


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
