"""The table and the summary of a parameter search, from what was measured and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrain_assets.evaluation.choice import Choice
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.racing import Race
from retrain_assets.evaluation.trials import Trials
from retrain_assets.models.forecaster import Settings, written

DEFAULT = "default"
CHOSEN = "chosen"
_SCORED = ("mae", "mae_pct", "skill", "mae_median", "coverage_80", "origins")


def search_table(
    settings: Sequence[Settings], trials: Trials, run: Race, choice: Choice
) -> pd.DataFrame:
    """One row per setting as given; columns as `search.SearchResult` lists them."""
    entrants = trials.entrants
    first = list(entrants.first)
    seen = ~np.isnan(trials.loss)
    n_seen = seen.sum(axis=0)
    mae = np.nansum(trials.loss, axis=0) / n_seen
    level = _mean_where(seen, trials.selection.actual.mean(axis=1))
    naive = _mean_where(seen, trials.naive_loss)
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = np.where(naive > 0, 1 - mae / naive, np.nan)
    everywhere = n_seen == len(trials.loss)
    rows = _settings_frame(settings)
    found = {
        "mae": mae,
        "mae_pct": 100 * mae / level,
        "skill": skill,
        "mae_median": np.nansum(trials.median_loss, axis=0) / n_seen,
        "coverage_80": np.nansum(trials.coverage, axis=0) / n_seen,
        "origins": n_seen,
    }
    for name, values in found.items():
        rows[name] = values[first]
    dropped = np.where(everywhere[: entrants.tried], 0, run.dropped)[first]
    rows["dropped_in_round"] = pd.Series(dropped, dtype="Int64").replace(0, pd.NA)
    same_as = pd.Series([first.index(entrant) for entrant in first], dtype="Int64")
    rows["same_as"] = same_as.mask(same_as == rows.index)
    rows["p_tie"] = choice.p_values[first]
    rows["se_vs_best"] = choice.standard_errors[first]
    rows["cost"] = entrants.costs[first]
    rows["tied"] = choice.tied[first]
    rows["chosen"] = rows.index == first.index(choice.chosen)
    return rows


def losses_table(trials: Trials) -> pd.DataFrame:
    """Losses by selection origin; columns as `search.SearchResult` lists them."""
    columns = {
        str(row): trials.loss[:, entrant] for row, entrant in enumerate(trials.entrants.first)
    }
    columns |= {DEFAULT: trials.loss[:, trials.entrants.default], NAIVE: trials.naive_loss}
    return pd.DataFrame(columns, index=trials.selection.cutoffs)


def summarise(scores: pd.DataFrame, trials: Trials, run: Race, choice: Choice) -> dict[str, Any]:
    """The result in numbers, as a JSON object; what does not exist is null.

    - `selection`, `test` (both H sessions ahead) and `test_plan` (the plan's horizon): of
      `chosen`, `default` and `naive` each `mae`, `mae_pct`, `skill` over naive, `mae_median`,
      `coverage_80` and `origins`;
    - `expected_gain_pct`: 100 x (1 - test MAE of chosen / test MAE of default), the figure to
      go by. It favours no setting, but rests on the test's few origins: pool stocks and months
      before believing it. `selection_gain_pct`: the same on the selection, too high because it
      was chosen there. `shrinkage_pct`: their difference. Each again as `..._over_naive_pct`;
    - `selection_mae`: of the chosen setting, exactly as measured, to be reproduced;
    - `chosen_row`, `best_row`: in the table; `tied`: distinct settings that tie with the best;
    - `settings`, `distinct`, `groups`, `origins`, `rounds`: counts; `path_rows` spent on the
      selection and `path_rows_exhaustive`, what measuring everything spends, the default's
      included in both.

    scores: of `metrics.scores`, with candidates naive, `<name>.default` and `<name>.chosen`.
    """
    entrants = trials.entrants
    selection, test = _scores(scores, "selection"), _scores(scores, "test")
    summary: dict[str, Any] = {
        "selection": selection,
        "test": test,
        "test_plan": _scores(scores, "test", scope="plan"),
    }
    for rival, suffix in ((DEFAULT, ""), (NAIVE, "_over_naive")):
        claimed, real = _gain_pct(selection, rival), _gain_pct(test, rival)
        summary[f"expected_gain{suffix}_pct"] = real
        summary[f"selection_gain{suffix}_pct"] = claimed
        summary[f"shrinkage{suffix}_pct"] = _difference(claimed, real)
    everything = np.arange(len(entrants.settings))
    return summary | {
        "selection_mae": trials.mae(choice.chosen),
        "chosen_row": entrants.first.index(choice.chosen),
        "best_row": entrants.first.index(choice.best),
        "tied": int(choice.tied.sum()),
        "settings": len(entrants.first),
        "distinct": entrants.tried,
        "groups": len(set(entrants.groups)),
        "origins": len(trials.loss),
        "rounds": run.rounds,
        "path_rows": trials.path_rows,
        "path_rows_exhaustive": entrants.path_rows(everything) * len(trials.loss),
    }


def words(settings: Settings) -> str:
    """Settings for a line of text: `temperature 0.7, top_k off`."""
    return ", ".join(f"{name} {written(value)}" for name, value in settings.items())


def _mean_where(seen: NDArray[np.bool_], by_origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of a value of the origins over those that each setting saw, (setting,)."""
    return np.asarray(by_origin @ seen / seen.sum(axis=0))


def _settings_frame(settings: Sequence[Settings]) -> pd.DataFrame:
    """The settings as columns, null where off, whole numbers and booleans as such."""
    values = {name: [setting.get(name) for setting in settings] for name in settings[0]}
    return pd.DataFrame(values, dtype=object).astype({n: _dtype(v) for n, v in values.items()})


def _dtype(values: Sequence[float | int | bool | None]) -> str:
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, bool) for value in given):
        return "boolean"
    return "Int64" if given and all(isinstance(value, int) for value in given) else "Float64"


def _scores(scores: pd.DataFrame, segment: str, scope: str = "holdout") -> dict[str, Any]:
    """Scores of one kind by naive, default and chosen."""
    rows = scores[(scores["segment"] == segment) & (scores["scope"] == scope)]
    return {
        str(row["candidate"]).split(".")[-1]: {name: _plain(row[name]) for name in _SCORED}
        for row in rows.to_dict("records")
    }


def _plain(value: Any) -> float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    return None if pd.isna(value) else float(value)


def _gain_pct(scored: dict[str, Any], rival: str) -> float | None:
    """How much less the chosen setting errs than a rival, in %; null if the rival never errs."""
    base = scored[rival]["mae"]
    return None if base == 0 else 100 * (1 - scored[CHOSEN]["mae"] / base)


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second
