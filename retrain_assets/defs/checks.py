"""Checks on what training and search stored; those on bars and on drift stand beside the assets."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.adapters import require_same_bars
from retrain_assets.defs.device import Device
from retrain_assets.defs.io import PartitionBars
from retrain_assets.defs.partitions import month_stock
from retrain_assets.defs.resources import Models
from retrain_assets.defs.reuse import Passed, code_version, digest_of, files_digest
from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.models.forecaster import families, family
from retrain_assets.operation import GPU

if TYPE_CHECKING:
    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.training.adapter_store import AdapterRecord


def build_adapter_check(family: str) -> dg.AssetChecksDefinition:
    """The check that a family's stored adapter is usable."""
    asset = adapter_name(family)

    @dg.asset_check(
        asset=asset,
        name="adapter_reloads",
        blocking=True,
        pool=GPU,
        partitions_def=month_stock,
        description="The stored weights are those of the record, and fit the base they name.",
    )
    def adapter_reloads(
        context: dg.AssetCheckExecutionContext,
        record: dict[str, Any],
        models: Models,
        device: Device,
    ) -> dg.AssetCheckResult:
        from retrain_assets.training.adapter_store import AdapterRecord
        from retrain_assets.training.adapters import load_adapted

        try:
            known = AdapterRecord.from_json(record)
            passed = Passed(context, _on_disk(known, models))
            if (before := passed.before()) is not None:
                return before
            with device.lease() as where:
                load_adapted(known, store=models.store(), checkpoints=models.bases, device=where)
        except RetrainError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        return passed.result(f"digest {known.digest[:12]}")

    return adapter_reloads


def adapter_checks() -> list[dg.AssetChecksDefinition]:
    """One check per model family."""
    return [build_adapter_check(name) for name in families()]


def build_params_check(family_name: str) -> dg.AssetChecksDefinition:
    """The check that a family's chosen parameters still hold."""

    @dg.asset_check(
        asset=params_name(family_name),
        name="params_reproduce",
        blocking=True,
        pool=GPU,
        partitions_def=month_stock,
        additional_ins={
            "market_bars": dg.AssetIn("market_bars"),
            "adapter": dg.AssetIn(adapter_name(family_name)),
        },
        description=(
            "The stored search loads, belongs to the adapter, base and bars at hand, and the "
            "chosen setting errs on the selection origins as it did: to the bit on the CPU."
        ),
    )
    def params_reproduce(
        context: dg.AssetCheckExecutionContext,
        record: dict[str, Any],
        market_bars: PartitionBars,
        adapter: dict[str, Any],
        models: Models,
        device: Device,
    ) -> dg.AssetCheckResult:
        from retrain_assets.training.adapter_store import AdapterRecord

        try:
            trained = AdapterRecord.from_json(adapter)
            stored = _stored(record, trained, market_bars, models)
            same = digest_of(
                {
                    "adapter": _on_disk(trained, models),
                    "search": files_digest(models.searches(trained) / stored.folder),
                    "bars": market_bars.hash,
                    "threads": device.threads,
                }
            )
            passed = Passed(context, same)
            if (before := passed.before()) is not None:
                return before
            with device.lease() as where:
                apart = _repeated(stored, trained, market_bars, models, device, where)
        except RetrainError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        mae = stored.summary["selection_mae"]
        return passed.result(
            f"selection error {mae:.6g} again", metadata={"relative difference": apart}
        )

    return params_reproduce


def params_checks() -> list[dg.AssetChecksDefinition]:
    """One check per model family."""
    return [build_params_check(name) for name in families()]


def _on_disk(record: "AdapterRecord", models: Models) -> str:
    """Digest of all that a check of an adapter reads: its files, its base, the code."""
    from retrain_assets.training.adapter_store import library_versions

    base = family(record.family).base_digest(record.base, checkpoints=models.bases)
    return digest_of(
        {
            "record": record.to_json(),
            "files": files_digest(models.store().path(record)),
            "base": base,
            "code": code_version(__file__),
            "versions": library_versions(),
        }
    )


def _stored(
    record: dict[str, Any], adapter: "AdapterRecord", view: PartitionBars, models: Models
) -> "ParamsRecord":
    """The search as its folder has it, after all that can be compared without a forecast."""
    from retrain_assets.evaluation.params import ParamsRecord, checked, read_search

    known = ParamsRecord.from_json(record)
    found, _, _ = read_search(models.searches(adapter) / known.folder)
    if found != known:
        raise BadInput(
            f"the files in {models.searches(adapter) / known.folder} are not those of the record: "
            f"search again with `retrain validate --stocks {adapter.symbol} "
            f"--month {adapter.month}`"
        )
    require_same_bars(adapter, view)
    return checked(known, adapter, options=known.options)


def _repeated(
    record: "ParamsRecord",
    adapter: "AdapterRecord",
    view: PartitionBars,
    models: Models,
    device: Device,
    where: str,
) -> float:
    """How far, relatively, the chosen setting's error is from the stored one."""
    from retrain_assets.evaluation.params import reproduce
    from retrain_assets.training.adapters import load_adapted

    model = load_adapted(adapter, store=models.store(), checkpoints=models.bases, device=where)
    own = family(record.family)
    forecaster = own.forecaster(model, name=own.name, options=record.options)
    return reproduce(record, view.bars, forecaster, device=where, threads=device.threads)
