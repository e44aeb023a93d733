"""Which stored results were made by another version of the code than would make them now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from retrain_assets.defs.partitions import month_and_symbol, partition_key

OTHER_CODE = "made by another version of the code"
_TAG = "dagster/code_version"


def current_versions(assets: Sequence[object]) -> dict[str, str]:
    """Version of the code by the name of the asset, of those that have one."""
    return {
        key.to_user_string(): version
        for asset in assets
        if isinstance(asset, dg.AssetsDefinition)
        for key, version in asset.code_versions_by_key.items()
        if version is not None
    }


def other_code(
    instance: dg.DagsterInstance, month: str, symbols: Sequence[str], current: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """By symbol and asset why a result is no longer what the code would give.

    current: versions of the assets to look at. Asks twice for each asset, however many stocks.
    """
    keys = {str(partition_key(month, symbol)) for symbol in symbols}
    found: dict[str, dict[str, str]] = {}
    for name, version in current.items():
        latest = instance.get_latest_storage_id_by_partition(
            dg.AssetKey(name), dg.DagsterEventType.ASSET_MATERIALIZATION, keys
        )
        if not latest:
            continue
        wanted = dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(name), storage_ids=sorted(latest.values())
        )
        for record in instance.fetch_materializations(wanted, limit=len(latest)).records:
            made = record.asset_materialization
            there = (made.tags or {}).get(_TAG) if made else None
            if made and made.partition and there not in (None, version):
                found.setdefault(month_and_symbol(made.partition)[1], {})[name] = OTHER_CODE
    return found
