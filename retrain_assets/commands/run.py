"""The commands `retrain run`, which does all for some stocks, and `validate`, the search alone."""

from __future__ import annotations

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import Answer
from retrain_assets.commands.console import opened
from retrain_assets.commands.stocks import asked_for, captioned, run_and_show

# The guide extends the table's epochs by half; without that, this share of them is left.
NOT_EXTENDED = 1 / 1.5


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


def _computing(upstream_filters: bool, precision: str | None) -> dict[str, str]:
    """What the flags of `validate` come down to, as options of a forecaster."""
    filters = {"compat": "upstream"} if upstream_filters else {}
    return filters | ({"precision": precision} if precision else {})
