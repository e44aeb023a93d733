"""What a month's comparisons come to over all stocks, pooled with the months before."""

import datetime as dt
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.legible import legible
from retrain_assets.defs.markdown_images import embedded
from retrain_assets.defs.partitions import month
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.resources import Reports
from retrain_assets.files import write_json
from retrain_assets.operation import OWNERS

if TYPE_CHECKING:
    from pathlib import Path

    from retrain_assets.evaluation.stock_record import StockRecord

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
    from retrain_assets.evaluation import comparison_summary

    records = sorted(comparison.values(), key=lambda record: record["symbol"])
    key = str(context.partition_key)
    folder = reports.comparisons(key)
    with failing_plainly():
        contents = comparison_summary.comparison_summary(
            key,
            records,
            failed=config.failed,
            timestamp=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            earlier=reports.earlier_comparisons(key),
        )
        written = _written(folder, contents)
    content = next(iter(contents.values()), {})
    context.log.info(f"{len(records)} stocks in {len(written)} files in {folder}")
    return dg.Output(
        {str(h): str(f) for h, f in zip(contents, written, strict=True)},
        metadata=legible(
            {
                "stocks": len(records),
                **({"errors": _errors(records)} if records else {}),
                **({"pooled": _pooled(content)} if content.get("pooled") else {}),
                **_pooled_skill(content),
                **_by_stock(key, records),
                "folder": dg.MetadataValue.path(folder),
            }
        ),
    )


def _written(folder: "Path", contents: dict[int, dict[str, Any]]) -> "list[Path]":
    """One file a plan horizon; those of horizons that no stock has any more are removed."""
    written = {folder / f"comparison_summary_h{h}.json": value for h, value in contents.items()}
    for stale in set(folder.glob("comparison_summary_h*.json")) - set(written):
        stale.unlink()
    for file, content in written.items():
        write_json(file, content)
    return list(written)


def _by_stock(month: str, records: "list[StockRecord]") -> dict[str, Any]:
    """Skill of every stock's candidates with its interval, as table and picture; empty without."""
    from retrain_assets.evaluation.monthly.facts import MonthFacts
    from retrain_assets.evaluation.monthly.figures import skill_by_stock, skills
    from retrain_assets.evaluation.stock_record import number

    drawn = skill_by_stock(MonthFacts(month, comparisons={r["symbol"]: r for r in records}))
    if drawn is None:
        return {}
    rows = []
    for record in records:
        for family in record["candidates"]:
            found = skills(record, family)
            told = {
                name: number(found.get(name), form="+.1f")
                for name in ("test", "selection", "low", "high")
            }
            rows.append(dg.TableRecord({"stock": record["symbol"], "model": family} | told))
    return {
        "skill over naive, %": dg.MetadataValue.table(rows),
        "skill by stock": dg.MetadataValue.md(embedded(drawn)),
    }


def _pooled_skill(content: dict[str, Any]) -> dict[str, float]:
    """A number a candidate, which Dagster's page draws over the months."""
    return {
        f"skill % of {name}": round(100 * now["skill"], 2)
        for name, now in content.get("pooled", {}).items()
        if now["skill"] is not None
    }


def _errors(records: "list[StockRecord]") -> dg.MetadataValue[Any]:
    """Errors of every candidate on the test holdout by stock."""
    rows = []
    for record in records:
        scores = ", ".join(
            f"{row['candidate']} {row['mae_pct']:.2f}"
            for row in record["scores"]
            if (row["segment"], row["scope"]) == ("test", "holdout")
        )
        known = {name: record[name] for name in ("bars", "difficulty", "winner")}
        rows.append(dg.TableRecord({"stock": record["symbol"]} | known | {"test MAE, %": scores}))
    return dg.MetadataValue.table(rows)


def _pooled(content: dict[str, Any]) -> dg.MetadataValue[Any]:
    """Pooled skill of every candidate, this month and to date."""
    from retrain_assets.evaluation.stock_record import number

    percent = partial(number, factor=100, form="+.1f")
    rows = []
    for name, now in content.get("pooled", {}).items():
        # Of a month that is not over, and of a candidate that is new in it, there is none.
        to_date = content["pooled_to_date"].get(name, _NOTHING_YET)
        ends = (to_date["skill_low"], to_date["skill_high"])
        rows.append(
            dg.TableRecord(
                {
                    "candidate": name,
                    "skill % this month": percent(now["skill"]),
                    "to date": percent(to_date["skill"]),
                    "95 % interval": "-" if None in ends else " to ".join(map(percent, ends)),
                    "p": number(to_date["p_value"], form=".2g"),
                    "months": to_date["months"],
                }
            )
        )
    return dg.MetadataValue.table(rows)
