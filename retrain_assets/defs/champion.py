"""Sixth stage: which version of each family is champion, and what production points to."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from retrain_assets.defs.device import Device
from retrain_assets.defs.io import OPTIONAL, PartitionBars
from retrain_assets.defs.legible import legible
from retrain_assets.defs.partitions import month_stock, of_month_before
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Bars, Models, Production, Reports
from retrain_assets.defs.tracking import Tracking, flat_numbers, partition_tags
from retrain_assets.errors import BadInput
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from retrain_assets.evaluation.champions import Losses, Occasion
    from retrain_assets.evaluation.production import ProductionStore
    from retrain_assets.evaluation.promotion import Rules
    from retrain_assets.evaluation.versions import Version


SEGMENTS: tuple[Literal["selection", "test"], ...] = ("selection", "test")
"""Whose origins decide."""


class PromotionConfig(dg.Config):
    """What it takes to replace what is in place; see `evaluation.promotion.Rules`."""

    rules: dict[str, float] = Field(
        default_factory=dict, description="Thresholds that differ from the usual ones, by name."
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap and of incumbents' forecasts.")
    rollback_to: str | None = Field(
        None, description="Put back what this month (YYYY-MM) decided, instead of deciding."
    )
    live: bool = Field(True, description="Off: decide for the record alone, move nothing.")


@dg.asset(
    partitions_def=month_stock,
    group_name="promotion",
    kinds={"mlflow"},
    owners=OWNERS,
    pool=GPU,
    ins={"comparison": dg.AssetIn(metadata=OPTIONAL)},
    # For the order alone: what was decided is read from the store, which knows what went live.
    deps=[dg.AssetDep("champion", partition_mapping=of_month_before())],
)
def champion(
    context: dg.AssetExecutionContext,
    config: PromotionConfig,
    market_bars: PartitionBars,
    comparison: dict[str, Any] | None,
    bars: Bars,
    models: Models,
    device: Device,
    production: Production,
    reports: Reports,
    tracking: Tracking,
) -> dg.Output[dict[str, Any]]:
    """A champion per family, and a pointer that says which of them, or naive, is in production.

    The first champion is the base as published, the first in production is naive. A candidate
    takes a champion's place only on evidence from the selection origins, counting everything that
    was tried, and if the test origins of all months so far do not object. The incumbent is scored
    on the same origins. Only the latest final month moves what is live; a month that is filled in
    later keeps its decision and moves nothing. `rollback_to` puts back what an earlier month
    decided.
    """
    from retrain_assets.defs.registry import NOT_TOUCHED, register

    with failing_plainly():
        store, stock = production.store(), bars.stock(market_bars.symbol)
        occasion = _occasion(market_bars, bars, config, store)
        if config.rollback_to is not None:
            record = _rolled_back(occasion, config.rollback_to, store, models)
        else:
            _require_usable(comparison, market_bars)
            scorer = Scorer(market_bars.bars, models, device, config.seed)
            record = decided(occasion, comparison, scorer, config, store)
        tags = partition_tags(context)
        with tracking.run("promotion", str(context.partition_key), tags=tags) as run:
            run.log_metrics([(0, flat_numbers(_numbers(record)))])
            run.log_params({"in_production": record["pointer"]["to"], "live": record["live"]})
            with store.lock(stock.symbol):
                registry, record = NOT_TOUCHED, store.as_taken(record)
                if record["live"]:
                    registry = register(record, stock, home=reports.place(), run=run)
                    store.set_live(record)
                store.keep(record)
    for line in in_words(record):
        tell(context, line)
    history = _history(store.decisions(stock.symbol))
    shown = {"mlflow": run.shown(), "model registry": registry, "history": history}
    return dg.Output(record, metadata=legible(_metadata(record) | shown))


def _require_usable(comparison: dict[str, Any] | None, view: PartitionBars) -> None:
    """Raise BadInput for a comparison of other bars, or of a time before decisions were taken."""
    if comparison is None:
        return
    whose = f"the comparison of {view.symbol} {view.month}"
    if "losses" not in comparison:
        raise BadInput(f"{whose} was made by an earlier version: materialize it again")
    if comparison["bars_hash"] != view.hash:
        raise BadInput(f"{whose} was made on other bars: materialize it again")


def _rolled_back(
    occasion: "Occasion", month: str, store: "ProductionStore", models: Models
) -> dict[str, Any]:
    """What a month decided, put back; everything it names is loaded first, so that it is whole.

    Only the stock's live month can be rolled back. Raises BadInput for another, and for a month
    of which nothing is known; CheckpointError for a version whose files are gone or altered.
    """
    from retrain_assets.evaluation import champions
    from retrain_assets.evaluation.versions import Version

    live = store.live(occasion.symbol)
    if live is None or not (occasion.live or live["month"] == occasion.month):
        month_there = "nothing" if live is None else live["month"]
        raise BadInput(
            f"{occasion.month} is not the month that is live for {occasion.symbol} "
            f"({month_there} is): only that one can be rolled back"
        )
    target = store.state_of(occasion.symbol, month)
    for state in target["families"].values():
        models.forecaster(Version.from_json(state["champion"]), "champion", "cpu")
    previous = store.before(occasion.symbol, occasion.month, live=True)
    current = champions.standing(live, None)
    return champions.rolled_back(replace(occasion, live=True), target, previous, current)


class Scorer:
    """Scores incumbents that a comparison has no column of, on its origins.

    device: leased where there is something to forecast, which is seldom.
    """

    def __init__(self, bars: pd.DataFrame, models: Models, device: Device, seed: int) -> None:
        self._bars, self._models, self._device, self._seed = bars, models, device, seed

    def losses(self, versions: "list[Version]", comparison: dict[str, Any]) -> "dict[str, Losses]":
        """Relative losses by version id; raises CheckpointError if a version's files are amiss."""
        from retrain_assets.evaluation.rescoring import losses_at
        from retrain_assets.training.splits import Split

        if not versions:
            return {}
        split = Split.from_json(_any_adapter(comparison)["split"])
        found: dict[str, Losses] = {version.id: {} for version in versions}
        with self._device.lease() as where:
            loaded = {v.id: (self._models.forecaster(v, v.title, where), v) for v in versions}
            for segment in SEGMENTS:
                losses = losses_at(
                    self._bars,
                    split.holdout_origins(segment),
                    split.holdout_days,
                    loaded,
                    symbol=comparison["symbol"],
                    seed=self._seed,
                )
                for name in loaded:
                    found[name][segment] = losses[name]
        return found

    def hindsight(
        self, incumbents: "Iterable[tuple[Version, str]]", comparison: dict[str, Any]
    ) -> dict[str, str]:
        """By version id why an incumbent cannot be judged here: it was fitted on these bars."""
        from retrain_assets.training.adapter_store import AdapterRecord
        from retrain_assets.training.adapters import hindsight
        from retrain_assets.training.splits import Split

        split = Split.from_json(_any_adapter(comparison)["split"])
        found = {}
        for version, _ in incumbents:
            if version.adapter is not None:
                earlier = AdapterRecord.from_json(version.adapter)
                if reason := hindsight(earlier, self._bars, split):
                    found[version.id] = reason
        return found

    def tried(self, comparison: dict[str, Any]) -> dict[str, np.ndarray]:
        """Relative selection losses of everything tried, by family, (origin, setting)."""
        from retrain_assets.evaluation.params import tried_losses

        table = comparison["losses"]["selection"]
        close = pd.Series(table["origin_close"], index=pd.DatetimeIndex(table["cutoff"]))
        root = self._models.store().root
        return {
            family: tried_losses([root / f for f in folders], relative_to=close).to_numpy()
            for family, folders in comparison["tried"].items()
            if folders
        }


def _any_adapter(comparison: dict[str, Any]) -> dict[str, Any]:
    """The adapter of some family of a comparison: their splits have the same origins."""
    versions = [entry["version"] for entry in comparison["candidates"].values()]
    return dict(versions[0]["adapter"])


def decided(
    occasion: "Occasion",
    comparison: dict[str, Any] | None,
    scorer: Scorer,
    config: PromotionConfig,
    store: "ProductionStore",
) -> dict[str, Any]:
    """The month's champion record; nothing is written. Raises BadInput for a rule out of range."""
    from retrain_assets.evaluation import champions

    rules = read_rules(config.rules)
    previous = store.before(occasion.symbol, occasion.month, live=occasion.live)
    before = champions.standing(previous, comparison)
    there = store.live(occasion.symbol)
    if comparison is None and there is not None and there["month"] == occasion.month:
        before = champions.standing(there, None)  # what the month decided already stays as well
    usable = comparison if occasion.final else None
    record = champions.decide_month(
        occasion,
        before,
        comparison=comparison,
        previous=previous,
        forecast=scorer.losses(champions.to_forecast(before, usable), usable) if usable else {},
        tried=scorer.tried(usable) if usable else {},
        unjudged=scorer.hindsight(before.champions.values(), usable) if usable else {},
        rules=rules,
        seed=config.seed,
    )
    record["notes"] += _out_of_order(occasion, previous, store)
    return record


def preview(
    month: str, symbol: str, config: PromotionConfig, resources: dict[str, Any]
) -> dict[str, Any]:
    """The record that `champion` would give for a stock's stored comparison; nothing is written."""
    bars, store = resources["bars"], resources["production"].store()
    view = bars.view(month, symbol)
    comparison = resources["reports"].comparison_record(month, symbol)
    _require_usable(comparison, view)
    scorer = Scorer(view.bars, resources["models"], resources["device"], config.seed)
    return decided(_occasion(view, bars, config, store), comparison, scorer, config, store)


def read_rules(given: Mapping[str, float]) -> "Rules":
    """The usual rules with the given ones in their place. Raises BadInput for one unknown."""
    from dataclasses import fields

    from retrain_assets.evaluation.promotion import Rules

    known = {f.name: f.type for f in fields(Rules)}
    if unknown := sorted(set(given) - set(known)):
        raise BadInput(f"there is no rule {', '.join(unknown)}: use {', '.join(known)}")
    whole = {name: int(v) if known[name] == "int" else v for name, v in given.items()}
    return Rules(**whole)  # type: ignore[arg-type]  # int or float, as the field has it


def _occasion(
    view: PartitionBars, bars: Bars, config: PromotionConfig, store: "ProductionStore"
) -> "Occasion":
    """Which month is decided on. A month before the one in production never goes live."""
    from retrain_assets.evaluation.champions import Occasion

    live = store.live(view.symbol)
    latest = view.month == bars.last_final_month(view.symbol)
    ahead = live is None or live["month"] <= view.month
    return Occasion(
        symbol=view.symbol,
        month=view.month,
        cut=f"{view.cut:%Y-%m-%d}",
        final=not view.provisional,
        live=config.live and not view.provisional and latest and ahead,
        decided_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def _out_of_order(
    occasion: "Occasion", previous: Mapping[str, Any] | None, store: "ProductionStore"
) -> list[str]:
    """What is not in order about the months around this one, in words."""
    from retrain_assets.market.calendar import month_before

    notes = []
    if previous is not None and previous["month"] != month_before(occasion.month):
        notes.append(
            f"no decision of {month_before(occasion.month)}: what {previous['month']} decided is "
            "taken for the incumbent"
        )
    later = store.months(occasion.symbol, after=occasion.month)
    if later:
        notes.append(
            f"{', '.join(later)} were decided before this month: materialize their champion again, "
            "in order, for a walk that begins with this decision"
        )
    return notes


def in_words(record: dict[str, Any]) -> list[str]:
    """A line a decision: what was asked, the answer and why."""
    lines = [
        f"{name}: {'promoted' if state['decision']['promote'] else 'stays'}, "
        f"{state['decision']['reason']}"
        for name, state in record["families"].items()
    ]
    pointer = record["pointer"]
    where = "in production" if record["live"] else "would be in production"
    lines.append(f"{where}: {pointer['to']}, {pointer['decision']['reason']}")
    return lines + list(record["notes"])


def _numbers(record: dict[str, Any]) -> dict[str, Any]:
    """What each decision was made by."""
    states = record["families"] | {"pointer": record["pointer"]}
    return {name: state["decision"]["numbers"] for name, state in states.items()}


def _history(decisions: list[dict[str, Any]]) -> dg.MetadataValue[Any]:
    """Everything that was decided of a stock so far, the newest first."""
    rows = [
        dg.TableRecord(
            {
                "month": record["month"],
                "in production": record["pointer"]["to"],
                "since": record["pointer"]["since"] or "the beginning",
                "live": record["live"],
                "reason": record["pointer"]["decision"]["reason"],
            }
        )
        for record in reversed(decisions)
    ]
    return dg.MetadataValue.table(rows)


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    """What the page of one partition shows."""
    decisions = {name: state["decision"] for name, state in record["families"].items()}
    decisions["pointer"] = record["pointer"]["decision"]
    shown = ("promote", "reason", "candidate", "incumbent")
    rows = [
        dg.TableRecord({"what": name, **{field: decision[field] for field in shown}})
        for name, decision in decisions.items()
    ]
    return {
        "in production": record["pointer"]["to"],
        "since": record["pointer"]["since"] or "the beginning",
        "live": dg.MetadataValue.bool(record["live"]),
        "decisions": dg.MetadataValue.table(rows),
        "numbers": dg.MetadataValue.json(_numbers(record)),
        "notes": dg.MetadataValue.json(record["notes"]),
    }
