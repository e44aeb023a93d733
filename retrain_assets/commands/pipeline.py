"""Commands over several stages: `retrain compare` of what is stored, `retrain pipeline` of all."""

from __future__ import annotations

from dataclasses import replace

from retrain_assets.commands import options as option
from retrain_assets.commands.answers import Answer
from retrain_assets.commands.console import opened, output
from retrain_assets.commands.stocks import asked_for, captioned, run_and_show


def compare(
    stocks: option.Stocks = None,
    priority: option.Priority = False,
    everything: option.Everything = False,
    month: option.Month = None,
    model_type: option.ModelType = "both",
    holdout_days: option.SameHoldoutDays = None,
    prediction_length: option.SamePredictionLength = None,
    seed: option.Seed = 0,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    force: option.Force = False,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Compare stored adapters and parameters with naive and with their bases, and say who wins.

    Examples:

    - `retrain compare --all`

    - `retrain compare --stocks SPY QQQ --model-type toto --month 2025-09`

    Nothing is trained, searched or promoted: `retrain promote` decides on what was compared. The
    forecasts are those of the test that the adapters were trained for; with --holdout-days or
    --prediction-length a stock whose adapters were trained for other lengths fails, and says which
    `retrain run` would serve. The exit code is 1 if a stock fails.
    """
    from retrain_assets.followups import Compare
    from retrain_assets.runs import ALL, chosen_families

    home, universe = opened()
    work = Compare(
        families=chosen_families(model_type),
        all_of_them=model_type != ALL,
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        seed=seed,
        force=force,
    )
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    caption = f"month {asked}, seed {seed}"
    return run_and_show(
        home, chosen, asked, work, caption=caption, device=device, jobs=jobs, quiet=no_progress
    )


def pipeline(
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
    seed: option.Seed = 0,
    grid: option.Grid = None,
    device: option.DeviceName = "auto",
    jobs: option.Jobs = 1,
    force: option.Force = False,
    no_progress: option.NoProgress = False,
    as_json: option.AsJson = False,
) -> Answer:
    """Everything: train, search, compare, promote, then report which stocks got worse.

    Examples:

    - `retrain pipeline --priority`

    - `retrain pipeline --all --jobs 4`

    - `retrain pipeline --priority --holdout-days 10 --prediction-length 128`

    It is `retrain run` followed by the report of `retrain analyze`. A stock that fails stops no
    other; the exit code is then 1. An interrupted pipeline goes on where it stopped when the same
    command is given again.
    """
    from retrain_assets.commands.decisions import analysis_of, print_analysis
    from retrain_assets.runs import chosen_families
    from retrain_assets.work import Retrain, Search

    home, universe = opened()
    search = Search(grid=option.read_grid(grid or ()))
    families = chosen_families(model_type)
    options = Retrain(
        families=families,
        holdout_days=holdout_days,
        prediction_length=prediction_length,
        bases=option.read_bases(base, families),
        context_length=context_length,
        max_steps=max_steps,
        seed=seed,
        search=search,
        force=force,
    )
    chosen, asked = asked_for(home, universe, stocks, priority, everything, month)
    caption = captioned(asked, seed, search)
    answer = run_and_show(
        home, chosen, asked, options, caption=caption, device=device, jobs=jobs, quiet=no_progress
    )
    if answer.content["error"]:  # the report may be of an earlier run
        return answer
    analysis = analysis_of(home, asked, None if everything else chosen.symbols, families)
    output().print()
    print_analysis(analysis)
    return replace(answer, content={**answer.content, "analysis": analysis})
