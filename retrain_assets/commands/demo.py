"""The command `retrain demo`: everything once on the bundled stocks, small enough for a CPU."""

from __future__ import annotations

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import Answer
from retrain_assets.commands.console import opened
from retrain_assets.commands.stocks import run_and_show
from retrain_assets.errors import BadInput

DEMO_SYMBOLS = ("AAPL", "AMZN", "GOOG", "META", "NFLX", "NVDA")
DEMO_MONTH = "2023-08"
DEMO_STEPS = 60
DEMO_CONTEXT = 256
DEMO_JOBS = 2
DEMO_PATHS = (5, 10)


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
