"""Last stage: adapter, untouched base and naive on the same test origins, per stock and month."""

import datetime as dt
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.adapters import GPU, adapter_name
from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.market import OWNERS
from retrain_assets.defs.partitions import month, month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Device, Models, Reports
from retrain_assets.errors import BadInput
from retrain_assets.files import atomic_file, write_json
from retrain_assets.models.forecaster import families, family

if TYPE_CHECKING:
    from pathlib import Path

    from retrain_assets.evaluation.comparison import Candidate, Comparison
    from retrain_assets.evaluation.report import StockRecord
    from retrain_assets.evaluation.splits import Split
    from retrain_assets.training.adapters import AdapterRecord

_ADAPTERS = {adapter_name(name): name for name in families()}


class ComparisonConfig(dg.Config):
    """What is compared."""

    families: list[str] = Field(
        default_factory=list, description="Model families; empty for all that have an adapter."
    )
    seed: int = Field(0, ge=0, description="Seed of every sampled forecast.")


class SummaryConfig(dg.Config):
    """What a summary says beside what it finds."""

    failed: dict[str, str] = Field(
        default_factory=dict, description="Stocks that failed, and why; listed in the files."
    )


@dg.asset(
    partitions_def=month_stock,
    group_name="comparison",
    kinds={"pytorch", "parquet"},
    owners=OWNERS,
    pool=GPU,
    ins={
        # A family that was not trained this month is left out, not an error.
        name: dg.AssetIn(metadata={"allow_missing_partitions": True})
        for name in _ADAPTERS
    },
)
def comparison(
    context: dg.AssetExecutionContext,
    config: ComparisonConfig,
    market_bars: PartitionBars,
    baseline_metrics: dict[str, Any],
    models: Models,
    device: Device,
    reports: Reports,
    **adapters: dict[str, Any] | None,
) -> dg.Output[dict[str, Any]]:
    """Naive, each base as published and each adapter forecast the same origins of one stock.

    Two horizons: the holdout's sessions and the plan's prediction length. The record holds
    errors, skill over naive, latency and the verdict; every forecast lies beside the month's
    summary as Parquet.
    """
    from retrain_assets.evaluation import metrics, report, significance
    from retrain_assets.evaluation.comparison import candidate_names, compare, occasions

    with failing_plainly(), device.lease() as where:
        records = _chosen(adapters, config.families, market_bars)
        split, candidates = _common_split(records), _candidates(records, models, where)
        compared = compare(
            market_bars.bars,
            split,
            candidates,
            symbol=market_bars.symbol,
            seed=config.seed,
            report=_reporter(context, len(candidates) * len(occasions(split))),
        )
        names = candidate_names(compared.forecasts)
        record = report.stock_record(
            metrics.scores(compared.forecasts, names),
            significance.winner(compared.forecasts, names),
            symbol=market_bars.symbol,
            bars=split.n_bars,
            difficulty=baseline_metrics["difficulty"],
            plan_horizon=split.horizon,
            holdout_days=split.holdout_days,
            latency_s=compared.latency_s,
        )
        folder = reports.comparisons(market_bars.month)
        file = _write_forecasts(compared, folder / f"{market_bars.symbol}_forecasts.parquet")
    tell(context, f"winner: {record['winner']}", 1.0)
    return dg.Output(dict(record), metadata=_metadata(record, file))


def _reporter(context: dg.AssetExecutionContext, lines: int) -> Callable[[str], None]:
    """A callback for the lines that a comparison reports, of which so many are to come."""
    _, symbol = month_and_symbol(context.partition_key)
    count = itertools.count()

    def report(line: str) -> None:
        tell(context, line.removeprefix(f"{symbol}: "), min(1.0, next(count) / lines))

    return report


def _chosen(
    adapters: dict[str, dict[str, Any] | None], wanted: list[str], view: PartitionBars
) -> "list[AdapterRecord]":
    """The adapters to compare, all trained on the very bars that are at hand."""
    from retrain_assets.training.adapters import AdapterRecord

    for name in wanted:
        family(name)
    found = {_ADAPTERS[name]: value for name, value in adapters.items() if value is not None}
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        names = ", ".join(adapter_name(name) for name in missing or families())
        raise BadInput(f"no adapter of {view.symbol} {view.month}: materialize {names} first")
    records = [AdapterRecord.from_json(found[name]) for name in wanted or found]
    for record in records:
        if record.bars_hash != view.hash:
            raise BadInput(
                f"the {record.family} adapter of {view.symbol} {view.month} was trained on other "
                f"bars: materialize {adapter_name(record.family)} again"
            )
    return records


def _common_split(records: "list[AdapterRecord]") -> "Split":
    """The split whose origins all adapters share; contexts may differ."""
    from retrain_assets.evaluation.comparison import occasions
    from retrain_assets.evaluation.splits import Split

    splits = [Split.from_json(record.split) for record in records]
    if len({occasions(split) for split in splits}) > 1:
        names = ", ".join(adapter_name(record.family) for record in records)
        raise BadInput(f"{names} were trained with different splits: materialize them again")
    return splits[0]


def _candidates(records: "list[AdapterRecord]", models: Models, device: str) -> "list[Candidate]":
    """Naive, and of each family the base with its published settings and the adapter."""
    from retrain_assets.evaluation.comparison import NAIVE, Candidate, candidate_name
    from retrain_assets.models.naive import NaiveForecaster
    from retrain_assets.training.adapters import load_adapted

    context = records[0].split["context"]
    found = [Candidate(NAIVE, NaiveForecaster(), {}, context)]
    for record in records:
        own, bases = family(record.family), models.bases
        loaded = {
            "zero_shot": own.load(record.base, checkpoints=bases, device=device),
            "adapter": load_adapted(record, store=models.store(), checkpoints=bases, device=device),
        }
        for variant in ("zero_shot", "adapter"):
            name = candidate_name(record.family, variant)
            forecaster = own.forecaster(loaded[variant], name=name)
            found.append(Candidate(name, forecaster, own.default_settings, record.split["context"]))
    return found


def _write_forecasts(compared: "Comparison", file: "Path") -> "Path":
    with atomic_file(file) as partial:
        compared.forecasts.to_parquet(partial, index=False)
    return file


def _metadata(record: "StockRecord", forecasts: "Path") -> dict[str, Any]:
    """What the page of one partition shows: winner, skills, every score, the forecasts' file."""
    from retrain_assets.evaluation.comparison import NAIVE

    skills = {
        f"skill % of {row['candidate']}": 100 * row["skill"]
        for row in record["scores"]
        if (row["segment"], row["scope"]) == ("test", "holdout")
        and row["candidate"] != NAIVE
        and row["skill"] is not None
    }
    return {
        "winner": record["winner"],
        "reason": record["reason"],
        **skills,
        "scores": dg.MetadataValue.table([dg.TableRecord(row) for row in record["scores"]]),
        "forecasts": dg.MetadataValue.path(forecasts),
    }


@dg.asset(
    partitions_def=month,
    group_name="comparison",
    kinds={"json"},
    owners=OWNERS,
    ins={
        "comparison": dg.AssetIn(metadata={"allow_missing_partitions": True, "by_partition": True})
    },
)
def comparison_summary(
    context: dg.AssetExecutionContext,
    config: SummaryConfig,
    comparison: dict[str, Any],
    reports: Reports,
) -> dg.Output[dict[str, str]]:
    """All stocks of a month that have a comparison, in one JSON file per plan horizon.

    Stocks without one are left out; a file of a horizon that no stock has any more is removed.
    """
    from retrain_assets.evaluation import report

    records = sorted(comparison.values(), key=lambda record: record["symbol"])
    key = str(context.partition_key)
    stamp = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    contents = report.comparison_summary(key, records, failed=config.failed, timestamp=stamp)
    folder = reports.comparisons(key)
    written = {folder / f"comparison_summary_h{h}.json": value for h, value in contents.items()}
    for stale in set(folder.glob("comparison_summary_h*.json")) - set(written):
        stale.unlink()
    for file, content in written.items():
        write_json(file, content)
    context.log.info(f"{len(records)} stocks in {len(written)} files in {folder}")
    return dg.Output(
        {str(h): str(f) for h, f in zip(contents, written, strict=True)},
        metadata={
            "stocks": len(records),
            "table": dg.MetadataValue.md(_markdown(records)),
            "folder": dg.MetadataValue.path(folder),
        },
    )


def _markdown(records: "list[StockRecord]") -> str:
    """Skill of every candidate on the test holdout by stock, as a Markdown table."""
    rows = [
        "| stock | bars | difficulty | winner | test MAE % |",
        "| --- | ---: | --- | --- | --- |",
    ]
    for record in records:
        scores = ", ".join(
            f"{row['candidate']} {row['mae_pct']:.2f}"
            for row in record["scores"]
            if (row["segment"], row["scope"]) == ("test", "holdout")
        )
        rows.append(
            f"| {record['symbol']} | {record['bars']} | {record['difficulty']} "
            f"| {record['winner']} | {scores} |"
        )
    return "\n".join(rows)
