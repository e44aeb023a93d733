"""What a month's comparisons come to over all stocks, pooled with the months before."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.market import OWNERS
from retrain_assets.defs.partitions import month
from retrain_assets.defs.plots import embedded
from retrain_assets.defs.resources import Reports
from retrain_assets.files import write_json

if TYPE_CHECKING:
    from retrain_assets.evaluation.report import StockRecord

_NOTHING_YET: dict[str, Any] = {
    **dict.fromkeys(("skill", "skill_low", "skill_high", "p_value")),
    "months": 0,
}


class SummaryConfig(dg.Config):
    """What a summary says beside what it finds."""

    failed: dict[str, str] = Field(
        default_factory=dict, description="Stocks that failed, and why; listed in the files."
    )


@dg.asset(
    partitions_def=month,
    group_name="comparison",
    kinds={"json"},
    owners=OWNERS,
    ins={"comparison": dg.AssetIn(metadata=GATHERED)},
)
def comparison_summary(
    context: dg.AssetExecutionContext,
    config: SummaryConfig,
    comparison: dict[str, Any],
    reports: Reports,
) -> dg.Output[dict[str, str]]:
    """All stocks of a month that have a comparison, in one JSON file per plan horizon.

    Beside each stock's errors the wins, and the skill pooled over stocks, by difficulty, and over
    all months up to this one, which alone can be more than chance. Stocks without a comparison are
    left out; a file of a horizon that no stock has any more is removed.
    """
    from retrain_assets.evaluation import summary

    records = sorted(comparison.values(), key=lambda record: record["symbol"])
    key = str(context.partition_key)
    stamp = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    contents = summary.comparison_summary(
        key,
        records,
        failed=config.failed,
        timestamp=stamp,
        earlier=reports.earlier_comparisons(key),
    )
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
            "pooled": dg.MetadataValue.md(_pooled(next(iter(contents.values()), {}))),
            **_pooled_skill(next(iter(contents.values()), {})),
            **_by_stock(key, records),
            "folder": dg.MetadataValue.path(folder),
        },
    )


def _by_stock(month: str, records: "list[StockRecord]") -> dict[str, Any]:
    """Skill of every stock with its interval, as a picture; empty without a family."""
    from retrain_assets.evaluation.monthly.facts import MonthFacts
    from retrain_assets.evaluation.monthly.figures import skill_by_stock

    drawn = skill_by_stock(MonthFacts(month, comparisons={r["symbol"]: r for r in records}))
    return {} if drawn is None else {"skill by stock": dg.MetadataValue.md(embedded(drawn))}


def _pooled_skill(content: dict[str, Any]) -> dict[str, float]:
    """A number a candidate, which Dagster's page draws over the months."""
    return {
        f"skill % of {name}": 100 * now["skill"]
        for name, now in content.get("pooled", {}).items()
        if now["skill"] is not None
    }


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


def _pooled(content: dict[str, Any]) -> str:
    """Pooled skill of every candidate, this month and to date, as a Markdown table."""
    rows = [
        "| candidate | skill % this month | to date | 95 % interval | p | months |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for name, now in content.get("pooled", {}).items():
        # Of a month that is not over, and of a candidate that is new in it, there is none.
        all_of_them = content["pooled_to_date"].get(name, _NOTHING_YET)
        ends = (all_of_them["skill_low"], all_of_them["skill_high"])
        between = "-" if None in ends else " to ".join(_percent(end) for end in ends)
        rows.append(
            f"| {name} | {_percent(now['skill'])} | {_percent(all_of_them['skill'])} | {between} "
            f"| {_plain(all_of_them['p_value'])} | {all_of_them['months']} |"
        )
    return "\n".join(rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"
