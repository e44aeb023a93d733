"""Nothing is computed twice: what was stored is taken again while all it is made of is the same.

A materialization carries two digests as tags: of its inputs (bars, config, base, code, libraries,
CPU threads) and of what was stored. When an asset runs again and its inputs are the same, and what
was stored is still there to the byte, it is returned as it is with its metadata. A check that
passed is not run again on the same files. `force: true` in the config computes everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs.legible import legible
from retrain_assets.defs.partitions import month_and_symbol
from retrain_assets.defs.progress import tell
from retrain_assets.errors import RetrainError
from retrain_assets.files import read_json

INPUTS_TAG = "retrain/inputs"
OUTPUT_TAG = "retrain/output"
SINCE = "unchanged since"
"""Metadata of an output that was taken again: when it was computed."""

INPUTS = "inputs"
"""Metadata of a check that passed: digest of what it read."""
_AS_BEFORE = ", as before on the same files"

_DATA_VERSION = "dagster/data_version"
_BY_IO_MANAGER = "path"  # metadata that is added to every output when it is stored
_DIGITS = 32  # of a digest; tags take 63 characters

Files = Callable[[dict[str, Any]], Iterable[Path]]


def force_field() -> Any:
    """The config field of every asset that can be told to compute again."""
    return Field(False, description="Compute it again even if nothing it is made of has changed.")


@cache
def code_version(module: str) -> str:
    """Digest of the code that computes: the lower layer, and the module at a path."""
    from retrain_assets.training.adapter_store import code_digest

    return _digest([code_digest().encode(), Path(module).read_bytes()])[:16]


class Reuse(dg.ConfigurableResource):  # type: ignore[type-arg]  # Dagster's own idiom
    """What assets have stored, to be taken again."""

    root: str = Field(description="Folder of what the assets return.")

    def recipe(
        self, context: dg.AssetExecutionContext, config: Any, *, files: Files, **inputs: Any
    ) -> Recipe:
        """What an asset's partition is made of.

        config: the asset's, with its field `force`. files: gives the files that belong to a
        record. inputs: JSON values that determine the result beside config, code and libraries.
        """
        from retrain_assets.training.adapter_store import library_versions

        given = config.model_dump()
        force = given.pop("force")
        made_of = {"config": given, "inputs": inputs, "versions": library_versions()}
        asset = context.asset_key.to_user_string()
        made_of["code"] = context.assets_def.code_versions_by_key[context.asset_key]
        month, symbol = month_and_symbol(context.partition_key)
        stored = Path(self.root) / asset / month / f"{symbol}.json"
        return Recipe(context, digest_of(made_of), force, stored, files)


@dataclass(frozen=True)
class Recipe:
    """What one partition is made of, and where what came of it is stored.

    digest: of all inputs. force: it is computed in any case. stored: the file of the record.
    files: the files that belong to a record.
    """

    context: dg.AssetExecutionContext
    digest: str
    force: bool
    stored: Path
    files: Files

    def before(self) -> dg.Output[dict[str, Any]] | None:
        """What was made of the same before, None if it has to be computed."""
        found = None if self.force else self._last()
        if found is None:
            return None
        event, stamp = found
        tags = event.tags or {}
        if tags.get(INPUTS_TAG) != self.digest:
            return None
        record = self._sound(tags.get(OUTPUT_TAG, ""))
        if record is None:
            self.context.log.info("what was stored is gone or altered: it is computed again")
            return None
        since = event.metadata.get(SINCE) or dg.MetadataValue.text(stamp)
        tell(
            self.context,
            f"unchanged since {since.value}: bars, config, base and code are the same; "
            "`force: true` computes it again",
            1.0,
        )
        kept = {n: value for n, value in event.metadata.items() if n != _BY_IO_MANAGER}
        version = tags.get(_DATA_VERSION)
        return self.output(
            record,
            metadata=kept | {SINCE: since},
            data_version=dg.DataVersion(version) if version else None,
        )

    def output(
        self,
        record: dict[str, Any],
        *,
        metadata: Mapping[str, Any],
        data_version: dg.DataVersion | None = None,
    ) -> dg.Output[dict[str, Any]]:
        """The output, to be known again by what it is made of."""
        tags = {INPUTS_TAG: self.digest, OUTPUT_TAG: self._content(record)}
        return dg.Output(record, metadata=legible(metadata), data_version=data_version, tags=tags)

    def _last(self) -> tuple[dg.AssetMaterialization, str] | None:
        """The partition's last materialization, and when it was."""
        wanted = dg.AssetRecordsFilter(
            asset_key=self.context.asset_key, asset_partitions=[str(self.context.partition_key)]
        )
        records = self.context.instance.fetch_materializations(wanted, limit=1).records
        if not records or records[0].asset_materialization is None:
            return None
        when = datetime.fromtimestamp(records[0].timestamp, UTC)
        return records[0].asset_materialization, f"{when:%Y-%m-%d %H:%M} UTC"

    def _sound(self, content: str) -> dict[str, Any] | None:
        """The stored record, if it and its files are what was stored."""
        try:
            record: dict[str, Any] = read_json(self.stored)
            return record if self._content(record) == content else None
        except (RetrainError, OSError, LookupError):
            return None

    def _content(self, record: dict[str, Any]) -> str:
        files = sorted(self.files(record))
        parts = [json.dumps(record, sort_keys=True).encode(), *(f.read_bytes() for f in files)]
        return _digest(parts)[:_DIGITS]


@dataclass(frozen=True)
class Passed:
    """A check that need not be run again on what it has passed on. digest: of all that it reads."""

    context: dg.AssetCheckExecutionContext
    digest: str

    def before(self) -> dg.AssetCheckResult | None:
        """The result, if the partition's last evaluation passed on the same; else None."""
        from dagster._core.event_api import PartitionKeyFilter
        from dagster._core.storage.asset_check_execution_record import (
            AssetCheckExecutionRecordStatus as Status,
        )

        (key,) = self.context.selected_asset_check_keys
        found = self.context.instance.event_log_storage.get_asset_check_execution_history(
            key,
            limit=1,
            status={Status.SUCCEEDED, Status.FAILED},
            partition_filter=PartitionKeyFilter(key=str(self.context.partition_key)),
        )
        if not found or found[0].status != Status.SUCCEEDED or found[0].evaluation is None:
            return None
        last = found[0].evaluation
        if last.metadata.get(INPUTS) != dg.MetadataValue.text(self.digest):
            return None
        told = (last.description or "").removesuffix(_AS_BEFORE) + _AS_BEFORE
        return self.result(told, metadata=last.metadata)

    def result(
        self, description: str, *, metadata: Mapping[str, Any] | None = None
    ) -> dg.AssetCheckResult:
        """That it passed, to be known again."""
        known = {**(metadata or {}), INPUTS: dg.MetadataValue.text(self.digest)}
        return dg.AssetCheckResult(passed=True, description=description, metadata=known)


def digest_of(values: Mapping[str, Any]) -> str:
    """Digest of JSON values."""
    return _digest([json.dumps(values, sort_keys=True).encode()])[:_DIGITS]


def files_digest(folder: Path) -> str:
    """Digest of the files in a folder; raises CheckpointError or OSError if one is gone."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    parts = [(str(f.relative_to(folder)).encode(), f.read_bytes()) for f in files]
    return _digest(part for pair in parts for part in pair)[:_DIGITS]


def _digest(parts: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()
