"""Fifth stage: every contender forecasts the same origins of one stock and month."""

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from pydantic import Field

from retrain_assets.defs.adapters import require_same_bars
from retrain_assets.defs.device import Device
from retrain_assets.defs.fans import forecasts_shown
from retrain_assets.defs.io import OPTIONAL, PartitionBars
from retrain_assets.defs.partitions import month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Models, Reports
from retrain_assets.defs.reuse import Recipe, Reuse, code_version, force_field
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.asset_names import adapter_name, params_name, refined_name
from retrain_assets.files import atomic_file, write_json, write_text
from retrain_assets.market.calendar import month_before
from retrain_assets.models.forecaster import Forecaster, families, family
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from pathlib import Path

    from retrain_assets.evaluation.comparison import Candidate, Comparison
    from retrain_assets.evaluation.contenders import Contenders
    from retrain_assets.evaluation.stock_record import StockRecord
    from retrain_assets.evaluation.versions import Version
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.splits import Split

_INPUTS = [name(f) for f in families() for name in (adapter_name, params_name, refined_name)]


class ComparisonConfig(dg.Config):
    """What is compared."""

    families: list[str] = Field(
        default_factory=list, description="Model families; empty for all that have an adapter."
    )
    seed: int = Field(0, ge=0, description="Seed of every sampled forecast.")
    force: bool = force_field()


@dg.asset(
    partitions_def=month_stock,
    group_name="comparison",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool=GPU,
    code_version=code_version(__file__),
    # A family that was not trained this month is left out, not an error.
    ins={name: dg.AssetIn(metadata=OPTIONAL) for name in _INPUTS},
)
def comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    market_bars: PartitionBars,
    baseline_metrics: dict[str, Any],
    models: Models,
    device: Device,
    reports: Reports,
    reuse: Reuse,
    **records: dict[str, Any] | None,
) -> dg.Output[dict[str, Any]]:
    """All contenders forecast the same origins of one stock, at two horizons.

    Naive, drift and AutoETS; of each family the base as published, the adapter with published and
    with chosen settings, the best rung of a refined stock, and last month's candidate. A stock's
    month has three test origins, so the winner is normally a tie. The record holds errors, skill
    over naive, latency and the verdict; a report in words and every forecast lie beside the
    month's summary.
    """
    with failing_plainly():
        adapters = _adapters(records, config.families, market_bars)
        split = _common_split(adapters)
        known = {"baseline": baseline_metrics, "records": records, "threads": device.threads}
        recipe = _recipe(context, config, known, market_bars, models, reports, reuse)
    if (before := recipe.before()) is not None:
        return before
    from retrain_assets.evaluation.stock_report import stock_text

    with failing_plainly(), device.lease() as where:
        found = _contenders(adapters, records, market_bars, reports, config.seed)
        candidates = _candidates(found, split, models, where)
        compared = _compared(context, market_bars, split, candidates, config.seed)
        record = _record(compared, found, split, market_bars, baseline_metrics, models, config.seed)
        folder = reports.comparisons(market_bars.month)
        file = _write_forecasts(compared, folder / f"{market_bars.symbol}_forecasts.parquet")
        text = stock_text(record)
        write_text(folder / f"{market_bars.symbol}_comparison.txt", text)
        write_json(reports.comparison(market_bars.month, market_bars.symbol), dict(record))
    for note in found.notes:
        tell(context, note)
    tell(context, f"winner: {record['winner']}", 1.0)
    fan = forecasts_shown(record, compared.forecasts)
    return recipe.output(dict(record), metadata=fan | _metadata(record, text, file))


def _recipe(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    known: dict[str, Any],
    view: PartitionBars,
    models: Models,
    reports: Reports,
    reuse: Reuse,
) -> Recipe:
    """All that a comparison depends on, the searches that count as tries among it.

    known: records of this month, CPU threads. Of last month's candidates it counts whether they
    are there.
    """
    store, folder = models.store(), reports.comparisons(view.month)
    last_month = {name: version.to_json() for name, version in _last_month(view, reports).items()}
    parents = [store.partition_folder(name, view.month, view.symbol) for name in families()]
    return reuse.recipe(
        context,
        config,
        files=lambda _: folder.glob(f"{view.symbol}_*"),
        bars=view.hash,
        last_month=last_month,
        there=[
            (store.root / version["adapter"]["folder"]).is_dir()
            for version in last_month.values()
            if version["adapter"]
        ],
        searches=sorted(str(f.name) for p in parents for f in (p / "params").glob("[0-9a-f]*")),
        **known,
    )


def _adapters(
    records: Mapping[str, dict[str, Any] | None], wanted: list[str], view: PartitionBars
) -> "list[AdapterRecord]":
    """The adapters to compare, all trained on the very bars that are at hand.

    A family that was not asked for by name is left out if its adapter is of other bars, as long as
    another is there.
    """
    from retrain_assets.training.adapter_store import AdapterRecord

    for name in wanted:
        family(name)
    found = {f: record for f in families() if (record := records[adapter_name(f)]) is not None}
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        names = ", ".join(adapter_name(name) for name in missing or families())
        raise BadInput(
            f"no adapter of {view.symbol} {view.month}: materialize {names} first, or "
            f"`retrain run --stocks {view.symbol} --month {view.month}`"
        )
    current = [name for name, record in found.items() if record["bars_hash"] == view.hash]
    adapters = [AdapterRecord.from_json(found[name]) for name in wanted or current or found]
    for adapter in adapters:
        require_same_bars(adapter, view)
    return adapters


def _common_split(adapters: "list[AdapterRecord]") -> "Split":
    """The split whose origins all adapters share; contexts may differ."""
    from retrain_assets.evaluation.comparison import occasions
    from retrain_assets.training.splits import Split

    splits = [Split.from_json(adapter.split) for adapter in adapters]
    if len({occasions(split) for split in splits}) > 1:
        names = ", ".join(adapter_name(adapter.family) for adapter in adapters)
        raise BadInput(f"{names} were trained with different splits: materialize them again")
    return splits[0]


def _contenders(
    adapters: "list[AdapterRecord]",
    records: Mapping[str, dict[str, Any] | None],
    view: PartitionBars,
    reports: Reports,
    seed: int,
) -> "Contenders":
    """Who takes part beside the baselines."""
    from retrain_assets.evaluation.contenders import gather
    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.evaluation.refinement import Refinement

    searches, ladders = {}, {}
    for name in families():
        if (search := records[params_name(name)]) is not None:
            searches[name] = ParamsRecord.from_json(search)
        if (ladder := records[refined_name(name)]) is not None:
            ladders[name] = Refinement.from_json(ladder)
    last_month = _last_month(view, reports)
    return gather(adapters, searches, ladders, last_month, bars=view.bars, seed=seed)


def _last_month(view: PartitionBars, reports: Reports) -> "dict[str, Version]":
    """Candidates of the stock's comparison one month earlier, by family, if there was one."""
    from retrain_assets.evaluation.versions import Version

    earlier = reports.comparison_record(month_before(view.month), view.symbol)
    found = {} if earlier is None else earlier["candidates"]
    return {name: Version.from_json(entry["version"]) for name, entry in found.items()}


def _candidates(
    found: "Contenders", split: "Split", models: Models, device: str
) -> "list[Candidate]":
    """Baselines and contenders, loaded; one whose files are gone is left out with a note.

    Only last month's may be: what this month made has to be there.
    """
    from retrain_assets.evaluation.comparison import AUTO_ETS, DRIFT, NAIVE, Candidate
    from retrain_assets.models.naive import NaiveForecaster
    from retrain_assets.models.statistical import auto_ets, drift

    baselines: dict[str, Forecaster] = {
        NAIVE: NaiveForecaster(),
        DRIFT: drift(),
        AUTO_ETS: auto_ets(),
    }
    context = max(version.context for version in found.versions.values())
    longest = min(context, split.holdout_origins("selection")[0] + 1)
    candidates = [Candidate(name, one, {}, longest) for name, one in baselines.items()]
    # The adapter serves with published and with chosen settings: it is loaded once.
    loaded: dict[str, Any] = {}
    for name, version in list(found.versions.items()):
        key = _model_key(version)
        try:
            loaded[key] = loaded.get(key) or models.forecaster(version, name, device)
        except RetrainError as error:
            if not name.endswith(".last_month"):
                raise
            found.notes.append(f"{name} is left out: {error}")
            del found.versions[name]
            continue
        candidates.append(Candidate(name, loaded[key], version.settings, version.context))
    return candidates


def _model_key(version: "Version") -> str:
    """Equal for versions that the same forecaster serves: they differ in settings alone."""
    adapter = None if version.adapter is None else version.adapter["digest"]
    return repr((version.family, version.base, adapter, sorted(version.options.items())))


def _compared(
    context: dg.AssetExecutionContext,
    view: PartitionBars,
    split: "Split",
    candidates: "list[Candidate]",
    seed: int,
) -> "Comparison":
    from retrain_assets.evaluation.comparison import compare, occasions

    return compare(
        view.bars,
        split,
        candidates,
        symbol=view.symbol,
        seed=seed,
        report=_reporter(context, len(candidates) * len(occasions(split))),
    )


def _reporter(context: dg.AssetExecutionContext, lines: int) -> Callable[[str], None]:
    """A callback for the lines that a comparison reports, of which so many are to come."""
    _, symbol = month_and_symbol(context.partition_key)
    count = itertools.count()

    def report(line: str) -> None:
        done = min(1.0, next(count) / lines)
        tell(context, line.removeprefix(f"{symbol}: "), done, minor=True)

    return report


def _record(
    compared: "Comparison",
    found: "Contenders",
    split: "Split",
    view: PartitionBars,
    baseline: dict[str, Any],
    models: Models,
    seed: int,
) -> "StockRecord":
    """Scores, verdict, losses by origin, and which version is this month's candidate."""
    from retrain_assets.evaluation import metrics, significance, stock_record
    from retrain_assets.evaluation.comparison import candidate_names
    from retrain_assets.training.adapter_store import library_versions

    names = candidate_names(compared.forecasts)
    searched = _searched(found, compared, view, models, seed)
    return stock_record.stock_record(
        metrics.scores(
            compared.forecasts,
            names,
            scale={view.symbol: metrics.one_step_scale(view.bars, split)},
        ),
        significance.winner(compared.forecasts, names, searched=searched),
        symbol=view.symbol,
        month=view.month,
        cut=f"{view.cut:%Y-%m-%d}",
        provisional=view.provisional,
        bars_hash=view.hash,
        seed=seed,
        versions=library_versions(),
        bars=split.n_bars,
        difficulty=baseline["difficulty"],
        plan_horizon=split.horizon,
        holdout_days=split.holdout_days,
        latency_s=compared.latency_s,
        latency_p95_s=compared.latency_p95_s,
        losses={
            "selection": metrics.origin_table(compared.forecasts, names, segment="selection"),
            "test": metrics.origin_table(compared.forecasts, names, segment="test"),
        },
        candidates=found.candidate_versions(),
        zero_shot=found.of_variant("zero_shot"),
        last_month=found.of_variant("last_month"),
        tried=found.tried,
        notes=found.notes,
    )


def _searched(
    found: "Contenders", compared: "Comparison", view: PartitionBars, models: Models, seed: int
) -> dict[str, float]:
    """By contender whose settings were chosen here: p of the best of all tried leading by chance.

    Adds searches that others have replaced to what was tried: they were tries all the same.
    """
    from retrain_assets.evaluation.choice import spa_p_value
    from retrain_assets.evaluation.comparison import NAIVE
    from retrain_assets.evaluation.params import searches_on, tried_losses
    from retrain_assets.evaluation.significance import origin_losses

    losses = origin_losses(compared.forecasts, [NAIVE], segment="selection")
    naive, store = losses.droplevel("unique_id")[NAIVE], models.store()
    p_values = {}
    for name, folders in found.tried.items():
        parent = store.partition_folder(name, view.month, view.symbol) / "params"
        others = [str(f.relative_to(store.root)) for f in searches_on(parent, naive.index)]
        folders += [folder for folder in others if folder not in folders]
        unscaled = pd.Series(1.0, index=naive.index)
        tried = tried_losses([store.root / f for f in folders], relative_to=unscaled)
        p_values[name] = spa_p_value(tried.to_numpy(), naive.to_numpy(), seed=seed)
    return {name: p_values[name.split(".")[0]] for name in found.searched}


def _write_forecasts(compared: "Comparison", file: "Path") -> "Path":
    with atomic_file(file) as partial:
        compared.forecasts.to_parquet(partial, index=False)
    return file


def _metadata(record: "StockRecord", text: str, forecasts: "Path") -> dict[str, Any]:
    """What the page of one partition shows: winner, skills, the report, the forecasts' file."""
    from retrain_assets.evaluation.comparison import NAIVE

    skills = {
        f"skill % of {row['candidate']}": round(100 * row["skill"], 2)
        for row in record["scores"]
        if (row["segment"], row["scope"]) == ("test", "holdout")
        and row["candidate"] != NAIVE
        and row["skill"] is not None
    }
    return {
        "winner": record["winner"],
        "reason": record["reason"],
        **skills,
        "report": dg.MetadataValue.md(f"```\n{text}\n```"),
        "scores": dg.MetadataValue.table([dg.TableRecord(row) for row in record["scores"]]),
        "forecasts": dg.MetadataValue.path(forecasts),
    }
