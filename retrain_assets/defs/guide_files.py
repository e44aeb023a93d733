"""Last stage: the retraining guide's file tree for what is in production."""

from typing import Any

import dagster as dg

from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.partitions import month
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.resources import Production, Reports
from retrain_assets.operation import OWNERS


@dg.asset(
    partitions_def=month,
    group_name="promotion",
    kinds={"json"},
    owners=OWNERS,
    ins={"champion": dg.AssetIn(metadata=GATHERED)},
    deps=["comparison_summary", "params_summary", "regression_report"],
)
def guide_files(
    context: dg.AssetExecutionContext,
    champion: dict[str, dict[str, Any]],
    production: Production,
    reports: Reports,
) -> dg.Output[dict[str, str]]:
    """Settings, models, logs and summaries of the current champions, where the guide had them.

    Only the month that is live writes them: one that is filled in later leaves them as they are.
    """
    from retrain_assets.export.tree import export_tree

    key = str(context.partition_key)
    store = production.store()
    records = [store.live(symbol) for symbol in sorted(r["symbol"] for r in champion.values())]
    live = [record["symbol"] for record in records if record and record["month"] == key]
    if not live:
        context.log.info(f"{key} is live for no stock: the files stay as they are")
        return dg.Output({}, metadata={"stocks": 0})
    with failing_plainly():
        home = reports.place()
        files = export_tree(home.export, home=home, month=key)
    context.log.info(f"{len(files)} files in {home.export}")
    return dg.Output(
        {"folder": str(home.export)},
        metadata={
            "stocks": len(live),
            "files": len(files),
            "folder": dg.MetadataValue.path(home.export),
        },
    )
