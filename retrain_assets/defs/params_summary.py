"""The month's chosen parameters in one file, in the shape that the guide's scripts read."""

from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.io import GATHERED
from retrain_assets.defs.partitions import month, month_and_symbol
from retrain_assets.defs.progress import failing_plainly
from retrain_assets.defs.resources import Reports
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.files import write_json
from retrain_assets.models.forecaster import families
from retrain_assets.operation import OWNERS

if TYPE_CHECKING:
    from retrain_assets.evaluation.params import ParamsRecord

SUMMARY_FILE = "hyperparameter_validation_results.json"


class ParamsSummaryConfig(dg.Config):
    """What a summary says beside what it finds."""

    failed: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="By family: stocks that failed, and why."
    )


@dg.asset(
    partitions_def=month,
    group_name="search",
    kinds={"json"},
    owners=OWNERS,
    ins={
        name: dg.AssetIn(metadata=GATHERED)
        for family in families()
        for name in (adapter_name(family), params_name(family))
    },
)
def params_summary(
    context: dg.AssetExecutionContext,
    config: ParamsSummaryConfig,
    reports: Reports,
    **records: dict[str, dict[str, Any]],
) -> dg.Output[dict[str, str]]:
    """Chosen inference parameters of all stocks of a month, in one JSON file.

    Errors in it are those of the test window. Stocks that were not searched are left out. One
    whose search failed is listed as failed, and so is one whose adapter has been trained anew
    since; a search that was refused leaves the parameters that were found before.
    """
    from retrain_assets.evaluation.params_report import validation_entry, validation_results

    file = reports.validations(str(context.partition_key)) / SUMMARY_FILE
    with failing_plainly():
        found = {
            family: _current(records[params_name(family)], records[adapter_name(family)])
            for family in families()
        }
        for family, reasons in config.failed.items():
            known = found[family]
            known.update({s: why for s, why in reasons.items() if not _holds(known.get(s))})
        symbols = sorted({symbol for searches in found.values() for symbol in searches})
        entries = [
            validation_entry(s, {f: searches[s] for f, searches in found.items() if s in searches})
            for s in symbols
        ]
        if not entries:
            file.unlink(missing_ok=True)
            return dg.Output({}, metadata={"stocks": 0})
        write_json(file, validation_results(entries))
    context.log.info(f"{len(entries)} stocks in {file}")
    return dg.Output(
        {"file": str(file)},
        metadata={"stocks": len(entries), "file": dg.MetadataValue.path(file)},
    )


def _holds(found: "ParamsRecord | str | None") -> bool:
    """Whether there are parameters, rather than a sentence on why there are none."""
    return found is not None and not isinstance(found, str)


def _current(
    searches: dict[str, dict[str, Any]], adapters: dict[str, dict[str, Any]]
) -> "dict[str, ParamsRecord | str]":
    """Records of the searches by symbol; a sentence for those of an adapter that is no more."""
    from retrain_assets.evaluation.params import ParamsRecord, checked
    from retrain_assets.training.adapter_store import AdapterRecord

    found: dict[str, ParamsRecord | str] = {}
    for key, value in searches.items():
        month, symbol = month_and_symbol(key)
        if key not in adapters:
            found[symbol] = f"its adapter is gone: retrain run --stocks {symbol} --month {month}"
            continue
        record, adapter = ParamsRecord.from_json(value), AdapterRecord.from_json(adapters[key])
        try:
            found[symbol] = checked(record, adapter, options=record.options)
        except BadInput as error:
            found[symbol] = str(error)
    return found
