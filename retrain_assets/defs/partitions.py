"""The two dimensions: `month` (as known at the close of its last session) and `stock`.

A stock becomes a partition when its bars are imported: a new symbol is data, not code.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from retrain_assets.home import Home
from retrain_assets.universe import Universe

# `end_offset` adds the running month: provisional until its last session is stored.
month = dg.MonthlyPartitionsDefinition(
    start_date=Universe.load(Home.find().universe).first_month, fmt="%Y-%m", end_offset=1
)
stock = dg.DynamicPartitionsDefinition(name="stock")
month_stock = dg.MultiPartitionsDefinition({"month": month, "stock": stock})


def partition_key(month: str, symbol: str) -> dg.MultiPartitionKey:
    """The key of one month and stock, `2023-08|AAPL`."""
    return dg.MultiPartitionKey({"month": month, "stock": symbol})


def month_and_symbol(key: str) -> tuple[str, str]:
    """Month and stock of a key, whether Dagster hands it over parsed or as text."""
    month, symbol = str(key).split("|")
    return month, symbol


def of_month_before() -> dg.MultiPartitionMapping:
    """A stock's partition of the month before."""
    return dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping(
                "month", dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
            ),
            "stock": dg.DimensionPartitionMapping("stock", dg.IdentityPartitionMapping()),
        }
    )


def register_stocks(instance: dg.DagsterInstance, symbols: Iterable[str]) -> None:
    """Make the symbols partitions of the instance; those it has already stay as they are."""
    instance.add_dynamic_partitions("stock", sorted(symbols))
