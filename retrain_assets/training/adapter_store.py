"""Stored adapters: the record of one, where it lies, and whether its folder came to harm."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import retrain_assets
from retrain_assets import __version__
from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.files import checked_symbol, is_month, read_json, write_json
from retrain_assets.market.calendar import month_before
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import family

RECORD_FILE = "record.json"
PLAN_FILE = "plan.json"
SPLIT_FILE = "split.json"
METRICS_FILE = "metrics.json"
LATEST_FILE = "latest.json"
LADDER_FILE = "ladder.json"
"""Beside a partition's adapters: how far its ladder was climbed."""


@dataclass(frozen=True)
class AdapterRecord:
    """What is known of a stored adapter; small enough to travel through the asset graph.

    folder: relative to the model store. digest: of the adapter's weights. fingerprint: of the
    base it belongs on. plan, split: as JSON. metrics: losses and counts of the fit; what was
    measured by the clock stands apart under "measured". versions: of the libraries and our code.
    """

    family: str
    base: str
    symbol: str
    month: str
    folder: str
    digest: str
    fingerprint: str
    bars_hash: str
    seed: int
    plan: dict[str, Any]
    split: dict[str, Any]
    split_dates: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AdapterRecord:
        """The record from its JSON; raises BadInput naming a field that is missing."""
        missing = [f.name for f in fields(cls) if f.name not in value]
        if missing:
            raise BadInput(f"the adapter's record lacks {', '.join(missing)}: retrain it")
        return cls(**{f.name: value[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class ModelStore:
    """The folder tree of adapters: family / month / symbol / one folder per content."""

    root: Path

    def partition_folder(self, family_name: str, month: str, symbol: str) -> Path:
        """Where one partition's adapters lie; the names are checked before they become a path."""
        if not is_month(month):
            raise BadInput(f"{month!r} is no month: write it as 2025-09")
        return self.root / family(family_name).name / month / checked_symbol(symbol)

    def latest(self, family_name: str, month: str, symbol: str) -> AdapterRecord | None:
        """The adapter last written for a partition, None if there is none."""
        pointer = self.partition_folder(family_name, month, symbol) / LATEST_FILE
        if not pointer.exists():
            return None
        return AdapterRecord.from_json(read_json(pointer))

    def previous(self, family_name: str, month: str, symbol: str) -> AdapterRecord | None:
        """The adapter last written for the month before, None if there is none."""
        return self.latest(family_name, month_before(month), symbol)

    def point_to(self, record: AdapterRecord) -> None:
        """Make an adapter the latest of its partition."""
        folder = self.partition_folder(record.family, record.month, record.symbol)
        write_json(folder / LATEST_FILE, record.to_json())

    def path(self, record: AdapterRecord) -> Path:
        """The folder of an adapter; raises CheckpointError if it is gone or leaves the store."""
        folder = (self.root / record.folder).resolve()
        if not folder.is_relative_to(self.root.resolve()):
            raise CheckpointError(f"{record.folder} lies outside the model store {self.root}")
        if not folder.is_dir():
            raise CheckpointError(
                f"the adapter folder {folder} is gone: retrain {record.symbol} {record.month}"
            )
        return folder


def parts(record: dict[str, Any]) -> dict[str, Any]:
    """The JSON files of an adapter's folder, by name, out of its record."""
    return {
        PLAN_FILE: record["plan"],
        SPLIT_FILE: record["split"] | {"dates": record["split_dates"]},
        METRICS_FILE: record["metrics"],
        RECORD_FILE: record,
    }


def whole_record(folder: Path) -> dict[str, Any]:
    """The record of an adapter's folder, of which every file is there and says the same.

    Raises CheckpointError naming the file that is missing, malformed or altered.
    """
    try:
        record: dict[str, Any] = read_json(folder / RECORD_FILE)
        for name, value in parts(record).items():
            if read_json(folder / name) != value:
                raise CheckpointError(f"{folder / name} is not what the record says")
        read_json(folder / lora.FORM_FILE)
    except BadInput as error:
        raise CheckpointError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / RECORD_FILE} is no adapter's record") from error
    settings, plan = lora.read_settings(folder), record["plan"]
    if (settings.rank, settings.alpha) != (plan["rank"], plan["alpha"]):
        raise CheckpointError(f"{folder / lora.CONFIG_FILE} is not what the record says")
    if weights_digest(lora.read_weights(folder)) != record["digest"]:
        raise CheckpointError(f"{folder / lora.WEIGHTS_FILE} is not what the record says")
    return record


def library_versions() -> dict[str, str]:
    """Versions of what computes the numbers, stored with every result."""
    found = {name: _installed(name) for name in ("torch", "peft", "numpy", "pandas", "safetensors")}
    return found | {"python": platform.python_version(), "retrain_assets": __version__}


@cache
def _installed(name: str) -> str:
    """Version of a package; looked up once, because it is asked for with every result."""
    return importlib.metadata.version(name)


def made_by() -> dict[str, str]:
    """What an adapter was made by: the libraries, and our own code."""
    return library_versions() | {"code": code_digest()}


@cache
def code_digest() -> str:
    """Digest of the code that computes, so that nothing an older one made is taken for its own.

    Feeds are left out, since the hash of the bars stands for what they fetch, and so are pages.
    """
    package = Path(retrain_assets.__file__).parent
    digest = hashlib.sha256()
    for folder in ("market", "models", "training", "evaluation"):
        for file in sorted((package / folder).rglob("*.py")):
            if file.parent.name not in {"feeds", "monthly"}:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
