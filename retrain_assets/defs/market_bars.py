"""First stage: the bars a month and stock may see, and whether they can be right."""

import dagster as dg

from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.partitions import month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Bars
from retrain_assets.errors import RetrainError
from retrain_assets.market.bars import VALUE_COLUMNS, VALUES
from retrain_assets.operation import OWNERS

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn(
            "session", "datetime64[ns]", description="Session, the exchange's date, at midnight."
        ),
        *(
            dg.TableColumn(name, "float64", description=description)
            for name, description in VALUES.items()
        ),
    ]
)


@dg.asset(
    partitions_def=month_stock,
    group_name="market",
    kinds={"parquet", "pandas"},
    owners=OWNERS,
    io_manager_key="bars_view",
    metadata={"dagster/column_schema": _COLUMNS},
)
def market_bars(context: dg.AssetExecutionContext, bars: Bars) -> dg.Output[PartitionBars]:
    """Daily bars as known at the close of the month's last session: nothing later is read.

    A view of the stored history, which is not copied. Its data version is the hash of the bars
    up to the cut, so later bars leave it alone. While the month's last session is not stored
    the partition is provisional and ends at the last stored bar.
    """
    month, symbol = month_and_symbol(context.partition_key)
    with failing_plainly():
        view = bars.view(month, symbol)
    tell(context, f"{len(view.bars)} bars to {view.cut:%Y-%m-%d}", 1.0)
    return dg.Output(view, data_version=dg.DataVersion(view.hash), metadata=_metadata(view))


def _metadata(view: PartitionBars) -> dict[str, dg.MetadataValue]:
    recent = [
        dg.TableRecord(
            {"session": f"{session:%Y-%m-%d}", **dict(zip(VALUE_COLUMNS, values, strict=True))}
        )
        for session, *values in view.bars.tail(5).itertuples(index=False)
    ]
    return {
        "dagster/row_count": dg.MetadataValue.int(len(view.bars)),
        "first": dg.MetadataValue.text(f"{view.bars['session'].iloc[0]:%Y-%m-%d}"),
        "cut": dg.MetadataValue.text(f"{view.cut:%Y-%m-%d}"),
        "provisional": dg.MetadataValue.bool(view.provisional),
        "calendar": dg.MetadataValue.text(view.calendar),
        "last bars": dg.MetadataValue.table(recent),
    }


@dg.asset_check(asset=market_bars, blocking=True, partitions_def=month_stock)
def bars_are_valid(market_bars: PartitionBars) -> dg.AssetCheckResult:
    """The bars fit the schema: sessions of the calendar, ascending, unique, prices that fit.

    Nothing downstream runs on bars that do not. What merely looks odd is listed.
    """
    from retrain_assets.market.schema import validate, warnings

    view = market_bars
    try:
        validate(view.bars, symbol=view.symbol, calendar=view.calendar, where="the bar store")
    except RetrainError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    odd = warnings(view.bars, view.calendar)
    return dg.AssetCheckResult(
        passed=True,
        description="; ".join(odd) or "nothing odd",
        metadata={"odd": dg.MetadataValue.int(len(odd))},
    )
