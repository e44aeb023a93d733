"""Who takes part in a stock's comparison, and which of them would be put into production.

Of each family: the base as published, this month's adapter with the published settings and with
the chosen ones, the best rung of its ladder if it was refined, and last month's candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import candidate_name
from retrain_assets.evaluation.params import ParamsRecord, checked
from retrain_assets.evaluation.refinement import Refinement
from retrain_assets.evaluation.versions import Version
from retrain_assets.models.forecaster import family
from retrain_assets.training.adapter_store import AdapterRecord
from retrain_assets.training.adapters import hindsight
from retrain_assets.training.splits import Split


@dataclass
class Contenders:
    """What is compared beside the baselines.

    versions: by candidate name, in the order of the table. candidates: by family the name of the
    one that would be put into production. tried: by family the folders, relative to the model
    store, of the searches behind them.
    notes: what was left out, and why.
    """

    versions: dict[str, Version] = field(default_factory=dict)
    candidates: dict[str, str] = field(default_factory=dict)
    tried: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def candidate_versions(self) -> dict[str, dict[str, Any]]:
        """This month's candidates as a comparison's record keeps them."""
        return {
            name: {"name": column, "version": self.versions[column].to_json()}
            for name, column in self.candidates.items()
        }

    def of_variant(self, variant: str) -> dict[str, dict[str, Any]]:
        """By family the version of one variant, as JSON."""
        return {
            column.split(".")[0]: version.to_json()
            for column, version in self.versions.items()
            if column.endswith(f".{variant}")
        }

    @property
    def searched(self) -> list[str]:
        """Candidates whose settings were chosen on the selection origins."""
        return [name for name in self.versions if name.endswith((".chosen", ".refined"))]


def gather(
    adapters: Sequence[AdapterRecord],
    searches: Mapping[str, ParamsRecord],
    refinements: Mapping[str, Refinement],
    last_month: Mapping[str, Version],
    *,
    bars: pd.DataFrame,
    seed: int,
) -> Contenders:
    """All contenders of one stock and month.

    adapters: one a family, trained on these bars. searches, refinements, last_month: by family,
    as far as there are any. seed: of forecasts.

    A search or refinement of another adapter, or one on other origins, is left out with a note,
    and so is a candidate of last month that was fitted on bars this month judges on.
    """
    found = Contenders()
    for adapter in adapters:
        name = adapter.family
        default = dict(family(name).default_settings)
        base = Version(
            family=name,
            base=adapter.base,
            fingerprint=adapter.fingerprint,
            settings=default,
            context=adapter.split["context"],
            seed=seed,
        )
        found.versions[candidate_name(name, "zero_shot")] = base
        found.versions[candidate_name(name, "adapter")] = adapted(adapter, default, seed=seed)
        found.candidates[name] = candidate_name(name, "adapter")
        found.tried[name] = []
        if name in searches:
            _add_chosen(found, adapter, searches[name], refinements.get(name))
        if name in last_month:
            _add_last_month(found, last_month[name], bars, Split.from_json(adapter.split))
    return found


def adapted(
    adapter: AdapterRecord,
    settings: Mapping[str, Any],
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> Version:
    """An adapter with settings, as a version."""
    return Version(
        family=adapter.family,
        base=adapter.base,
        fingerprint=adapter.fingerprint,
        month=adapter.month,
        adapter=adapter.to_json(),
        settings=dict(settings),
        options=dict(options or {}),
        context=adapter.split["context"],
        seed=seed,
    )


def _add_chosen(
    found: Contenders,
    adapter: AdapterRecord,
    search: ParamsRecord,
    refinement: Refinement | None,
) -> None:
    """The chosen settings, and the best rung if there is one; the better becomes candidate."""
    name = adapter.family
    try:
        checked(search, adapter, options=search.options)
        same_origins(search, adapter)
    except BadInput as error:
        found.notes.append(f"{candidate_name(name, 'chosen')} is left out: {error}")
        return
    chosen = candidate_name(name, "chosen")
    found.versions[chosen] = adapted(
        adapter, search.chosen, seed=search.seed, options=search.options
    )
    found.candidates[name] = chosen
    found.tried[name] = [search_folder(search)]
    if refinement is None:
        return
    if refinement.policy != adapter.digest:
        found.notes.append(
            f"{candidate_name(name, 'refined')} is left out: its ladder began with another adapter"
        )
        return
    found.tried[name] += [search_folder(r.search) for r in refinement.rungs if r.search]
    best = refinement.best
    if best is None or best.adapter is None or best.search is None:
        return
    refined, own = candidate_name(name, "refined"), best.search
    found.versions[refined] = adapted(best.adapter, own.chosen, seed=own.seed, options=own.options)
    if own.summary["selection_mae"] < search.summary["selection_mae"]:
        found.candidates[name] = refined


def search_folder(search: ParamsRecord) -> str:
    """Folder of a search, relative to the model store."""
    return f"{search.family}/{search.month}/{search.symbol}/params/{search.folder}"


def same_origins(search: ParamsRecord, adapter: AdapterRecord) -> None:
    """Raise BadInput for a search whose forecasts were not those of the adapter's own split."""
    ours, own = Split.from_json(search.split), Split.from_json(adapter.split)
    if (ours.selection, ours.holdout_days) != (own.selection, own.holdout_days):
        raise BadInput(
            f"its settings were searched on forecasts of {ours.holdout_days} sessions and "
            f"{ours.selection_origins} origins, not on the adapter's own: search again with "
            f"`retrain validate --stocks {adapter.symbol} --month {adapter.month}`"
        )


def _add_last_month(found: Contenders, version: Version, bars: pd.DataFrame, split: Split) -> None:
    """Last month's candidate, unless it has seen what this month judges on."""
    column = candidate_name(version.family, "last_month")
    if version.adapter is not None:
        earlier = AdapterRecord.from_json(version.adapter)
        if reason := hindsight(earlier, bars, split):
            found.notes.append(f"{column} is left out: {reason}")
            return
    found.versions[column] = version
