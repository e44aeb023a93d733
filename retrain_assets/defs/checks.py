"""Checks on what training stored; the check on bars stands beside them in `market`."""

from typing import Any

import dagster as dg

from retrain_assets.defs.adapters import adapter_name
from retrain_assets.defs.partitions import month_stock
from retrain_assets.defs.resources import Device, Models
from retrain_assets.errors import RetrainError
from retrain_assets.models.forecaster import families


def build_adapter_check(family: str) -> dg.AssetChecksDefinition:
    """The check that a family's stored adapter is usable."""
    asset = adapter_name(family)

    @dg.asset_check(
        asset=asset,
        name="adapter_reloads",
        blocking=True,
        partitions_def=month_stock,
        description="The stored weights are those of the record, and fit the base they name.",
    )
    def adapter_reloads(
        record: dict[str, Any], models: Models, device: Device
    ) -> dg.AssetCheckResult:
        from retrain_assets.training.adapters import AdapterRecord, load_adapted

        try:
            with device.lease() as where:
                known = AdapterRecord.from_json(record)
                load_adapted(known, store=models.store(), checkpoints=models.bases, device=where)
        except RetrainError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        return dg.AssetCheckResult(passed=True, description=f"digest {known.digest[:12]}")

    return adapter_reloads


def adapter_checks() -> list[dg.AssetChecksDefinition]:
    """One check per model family."""
    return [build_adapter_check(name) for name in families()]
