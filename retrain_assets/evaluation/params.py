"""Chosen settings on disk: what they belong to, what they scored, and that they repeat.

A search is one folder with params.json (the record), grid.parquet (every setting) and
losses.parquet (every loss by origin). It is written whole, under a name derived from everything
that determines its content.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.racing import Racing
from retrain_assets.evaluation.search import ACCELERATOR_TOLERANCE, SearchResult, search
from retrain_assets.evaluation.search_results import DEFAULT
from retrain_assets.evaluation.trials import Entrants, SelectionOrigins, Trials
from retrain_assets.files import atomic_folder, read_json, write_json
from retrain_assets.models.forecaster import Forecaster, Settings
from retrain_assets.training.splits import Split

if TYPE_CHECKING:
    from retrain_assets.training.adapter_store import AdapterRecord

RECORD_FILE = "params.json"
GRID_FILE = "grid.parquet"
LOSSES_FILE = "losses.parquet"


@dataclass(frozen=True)
class ParamsRecord:
    """Settings chosen for one stock and month, and all that they depend on.

    adapter: digest of the adapter's weights. fingerprint: of the base. threads, device, options:
    how forecasts were computed. context: bars looked back on. split: as JSON, with the lengths
    that were tested; split_dates: of its selection and test. chosen, default: settings.
    summary: see `search_report.summarise`. digest: SHA-256 of all that determines the result,
    the settings tried and the racing rules among it. measured: by the clock.
    """

    family: str
    base: str
    symbol: str
    month: str
    adapter: str
    fingerprint: str
    bars_hash: str
    seed: int
    threads: int
    device: str
    options: dict[str, Any]
    context: int
    split: dict[str, Any]
    split_dates: dict[str, Any]
    chosen: dict[str, Any]
    default: dict[str, Any]
    summary: dict[str, Any]
    versions: dict[str, str]
    digest: str
    measured: dict[str, Any]

    @property
    def folder(self) -> str:
        """Name of the folder the search is written to."""
        return self.digest[:16]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ParamsRecord:
        """The record from its JSON; raises BadInput naming a field that is missing or unknown."""
        names = [f.name for f in fields(cls)]
        missing = [name for name in names if name not in value]
        unknown = sorted(set(value) - set(names))
        if missing or unknown:
            wrong = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)}"
            raise BadInput(f"the params record {wrong}: search again with `retrain validate`")
        return cls(**{name: value[name] for name in names})


def params_record(
    result: SearchResult,
    adapter: AdapterRecord,
    split: Split,
    bars: pd.DataFrame,
    *,
    settings: Sequence[Settings],
    seed: int,
    threads: int,
    device: str,
    options: Mapping[str, Any] | None = None,
) -> ParamsRecord:
    """The record of a search with an adapter.

    split: the one searched on. bars: those it was made for. settings: as they were given to
    the search.
    """
    from retrain_assets.training.adapter_store import library_versions

    determines: dict[str, Any] = {
        "family": adapter.family,
        "base": adapter.base,
        "symbol": adapter.symbol,
        "month": adapter.month,
        "adapter": adapter.digest,
        "fingerprint": adapter.fingerprint,
        "bars_hash": adapter.bars_hash,
        "seed": seed,
        "threads": threads,
        "device": device,
        "options": dict(options or {}),
        "context": split.context,
        "split": split.to_json(),
        "default": result.default,
        "versions": library_versions(),
    }
    inputs = determines | {
        "settings": [dict(setting) for setting in settings],
        "racing": result.summary["racing"],
    }
    dates = split.dates(pd.DatetimeIndex(bars["session"]))
    return ParamsRecord(
        **determines,
        split_dates={name: dates[name] for name in ("selection", "test")},
        chosen=result.chosen,
        summary=result.summary,
        digest=hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        measured=result.measured,
    )


def search_adapter(
    adapter: AdapterRecord,
    split: Split,
    bars: pd.DataFrame,
    forecaster: Forecaster,
    settings: Sequence[Settings],
    *,
    default: Settings,
    seed: int,
    racing: Racing | None,
    threads: int,
    device: str,
    options: Mapping[str, Any],
    report: Callable[[str], None],
) -> tuple[ParamsRecord, SearchResult]:
    """Search settings of an adapter, and the record of it; see `search.search` for the arguments.

    forecaster: with the adapter. threads, device, options: how it computes.
    """
    result = search(
        bars,
        split,
        forecaster,
        settings,
        default=default,
        context=split.context,
        symbol=adapter.symbol,
        seed=seed,
        racing=racing,
        device=device,
        report=report,
    )
    record = params_record(
        result,
        adapter,
        split,
        bars,
        settings=settings,
        seed=seed,
        threads=threads,
        device=device,
        options=options,
    )
    return record, result


def checked(
    record: ParamsRecord, adapter: AdapterRecord, *, options: Mapping[str, Any] | None = None
) -> ParamsRecord:
    """Return `record` if it belongs to this adapter, its base and bars, and these options.

    Raises BadInput naming the first field that differs, with both values.
    """
    wanted = {
        "family": adapter.family,
        "base": adapter.base,
        "symbol": adapter.symbol,
        "month": adapter.month,
        "fingerprint": adapter.fingerprint,
        "adapter": adapter.digest,
        "bars_hash": adapter.bars_hash,
        "options": dict(options or {}),
    }
    for name, value in wanted.items():
        found = getattr(record, name)
        if found != value:
            raise BadInput(
                f"the params of {record.symbol} {record.month} have {name} {_short(found)}, and "
                f"{_short(value)} is needed: search again with `retrain validate --stocks "
                f"{adapter.symbol} --month {adapter.month}`"
            )
    return record


def write_search(parent: Path, record: ParamsRecord, result: SearchResult) -> Path:
    """Write a search as one folder under `parent`, whole or not at all; returns the folder."""
    folder = parent / record.folder
    with atomic_folder(folder) as partial:
        write_json(partial / RECORD_FILE, record.to_json())
        result.table.to_parquet(partial / GRID_FILE)
        result.losses.to_parquet(partial / LOSSES_FILE)
    return folder


def read_search(folder: Path) -> tuple[ParamsRecord, pd.DataFrame, pd.DataFrame]:
    """Record, table and losses of a search; raises BadInput naming a file that is missing."""
    record = ParamsRecord.from_json(read_json(folder / RECORD_FILE))
    for name in (GRID_FILE, LOSSES_FILE):
        if not (folder / name).exists():
            raise BadInput(f"{folder / name} does not exist: search again with `retrain validate`")
    return record, pd.read_parquet(folder / GRID_FILE), pd.read_parquet(folder / LOSSES_FILE)


def same_terms(record: ParamsRecord, table: pd.DataFrame) -> tuple[list[Settings], Racing | None]:
    """Settings and racing rules of a stored search, to search another adapter on the same terms.

    table: of `read_search`. The rules are None where every setting was measured everywhere.
    """
    rules = record.summary["racing"]
    # The default may hold settings that were not searched, and the table has no column of.
    columns = table[list(record.chosen)].astype(object)
    rows = columns.where(columns.notna(), None).to_dict("records")
    settings: list[Settings] = [{str(name): value for name, value in row.items()} for row in rows]
    return settings, None if rules is None else Racing(**rules)


def searches_on(parent: Path, origins: pd.Index[pd.Timestamp]) -> list[Path]:
    """Folders of all searches below `parent` whose settings were tried on these very origins.

    Whatever was tried on them counts, also by a search that another has replaced since.
    """
    found = []
    for folder in sorted(parent.glob("[0-9a-f]*")):
        losses = folder / LOSSES_FILE
        if losses.is_file() and pd.read_parquet(losses, columns=[NAIVE]).index.equals(origins):
            found.append(folder)
    return found


def tried_losses(folders: Sequence[Path], *, relative_to: pd.Series[float]) -> pd.DataFrame:
    """Losses of everything that searches tried on the same origins: rows origins, NaN if dropped.

    folders: of the searches. relative_to: what to divide each origin's losses by, its close for
    instance, indexed by session. Raises BadInput when a search was made on other origins.
    """
    parts = []
    for folder in folders:
        _, _, losses = read_search(folder)
        if not losses.index.equals(relative_to.index):
            raise BadInput(
                f"the search in {folder} was made on other origins than the comparison: search "
                "again with `retrain validate`, then compare again"
            )
        settings = losses.drop(columns=[DEFAULT, NAIVE])
        parts.append(settings.div(relative_to, axis="index").add_prefix(f"{folder.name}/"))
    return pd.concat(parts, axis="columns") if parts else pd.DataFrame(index=relative_to.index)


def reproduce(
    record: ParamsRecord,
    bars: pd.DataFrame,
    forecaster: Forecaster,
    *,
    device: str | None = None,
    threads: int | None = None,
) -> float:
    """Forecast the selection again with the chosen setting; returns the relative difference.

    bars: as many as the record's split has. forecaster: with the record's adapter. device,
    threads: where it computes, by default as in the record. On the same CPU threads the error
    has to be the stored one to the bit; elsewhere within a relative 2 %, since a path
    may take another course where products round otherwise.

    Raises RetrainError with both errors otherwise.
    """
    split = Split.from_json(record.split)
    selection = SelectionOrigins.of(bars, split, record.context)
    entrants = Entrants.check(forecaster, [record.chosen], record.chosen)
    trials = Trials(forecaster, selection, entrants, seed=record.seed, report=lambda line: None)
    trials.measure_all()
    found, stored = trials.mae(0), float(record.summary["selection_mae"])
    same = (device or record.device, threads or record.threads) == (record.device, record.threads)
    exact = same and record.device == "cpu"
    allowed = 0.0 if exact else ACCELERATOR_TOLERANCE
    if not math.isclose(found, stored, rel_tol=allowed):
        raise RetrainError(
            f"the params of {record.symbol} {record.month} erred by {stored!r} on the selection "
            f"origins when they were chosen, and err by {found!r} now, more than {allowed:g} "
            "apart: bars, adapter or libraries changed; search again with `retrain validate`"
        )
    return abs(found - stored) / stored if stored else 0.0


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) >= 20 else repr(value)
