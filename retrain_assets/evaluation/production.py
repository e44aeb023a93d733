"""What is in production, one record a stock, and every decision that led there.

A record is the JSON of one month's decisions on one stock (see `evaluation.champions`). Under one
folder, `<SYMBOL>/live.json` is the record in force and `<SYMBOL>/decisions/000012_2023-08.json` the
twelfth that was kept. Files are written whole or not at all, and those of decisions never again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from retrain_assets.errors import BadInput
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.versions import Version
from retrain_assets.files import MONTH, checked_symbol, exclusive, read_json, write_json
from retrain_assets.market.bars import is_symbol

LIVE_FILE = "live.json"

_DECISION_FILE = re.compile(rf"\d{{6}}_{MONTH}\.json")
_LOCK_SECONDS = 60.0


class ProductionStore:
    """Live records and decisions of many stocks under one folder.

    Readers never wait and write nothing: they see the record before a change or after it.
    Writers of one stock take turns. Every method that takes a symbol raises BadInput for one
    that is no usable symbol, and every reader, naming file and field, for a file that is no
    record.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def symbols(self) -> list[str]:
        """Stocks of which something is in production or was decided, sorted."""
        if not self.root.is_dir():
            return []
        names = [folder.name for folder in self.root.iterdir() if is_symbol(folder.name)]
        return sorted(name for name in names if self._live(name).is_file() or self._files(name))

    def live(self, symbol: str) -> dict[str, Any] | None:
        """The record in force, or None before the first."""
        path = self._live(symbol)
        return _read(path, symbol) if path.is_file() else None

    def decisions(self, symbol: str) -> list[dict[str, Any]]:
        """Every record that was kept, oldest first."""
        return [_read(file, symbol) for file in self._files(symbol)]

    def months(self, symbol: str, *, after: str = "") -> list[str]:
        """Months that were decided on, ascending; only those after a month if one is given.

        A record of a month that was not over decided nothing and does not count.
        """
        found = {record["month"] for record in self.decisions(symbol) if record["final"]}
        return sorted(month for month in found if month > after)

    def state_of(self, symbol: str, month: str) -> dict[str, Any]:
        """What a month decided, if it was over: what went into production, else what was kept last.

        Raises BadInput listing the months there are.
        """
        decided = [r for r in self.decisions(symbol) if r["month"] == month and r["final"]]
        if decided:
            return ([record for record in decided if record["live"]] or decided)[-1]
        months = self.months(symbol)
        there = f"choose one of {', '.join(months)}" if months else "no month was decided on yet"
        raise BadInput(f"nothing was decided on {symbol} in {month}: {there}")

    def before(self, symbol: str, month: str, *, live: bool = False) -> dict[str, Any] | None:
        """What the latest month before `month` decided, or None if there is none.

        live: a month that goes into production begins with what is there. So records that went
        into production come first then; one that was only filled in is taken where there are none.
        """
        decided = [r for r in self.decisions(symbol) if r["final"] and r["month"] < month]
        decided = ([r for r in decided if r["live"]] or decided) if live else decided
        latest = max((record["month"] for record in decided), default=None)
        return next((r for r in reversed(decided) if r["month"] == latest), None)

    def in_force(self, symbol: str, month: str) -> dict[str, Any] | None:
        """What stood at the beginning of a month: what the one before decided, not put back since.

        Of months that never went into production it is what would have stood.
        """
        own = self.before(symbol, month, live=True)
        if own is None or not own.get("rolled_back_to"):
            return own
        same = [r for r in self.decisions(symbol) if r["month"] == own["month"] and r["live"]]
        return next((record for record in same if not record.get("rolled_back_to")), own)

    def selected(self, symbol: str, month: str) -> dict[str, Any] | None:
        """The record by which a month's promotions were decided, None if none was kept."""
        same = [r for r in self.decisions(symbol) if r["month"] == month and r["losses"]]
        return next(reversed([r for r in same if r["live"]] or same), None)

    def set_live(self, record: Mapping[str, Any]) -> None:
        """Put a record in force, for its stock.

        Raises BadInput for one that is malformed or not marked live, and for one of a month
        before that of the record in force: months that are filled in later move nothing.
        """
        symbol = _checked(dict(record), "the record to put into production")
        if not (record["final"] and record["live"]):
            raise BadInput(
                f"the record of {symbol} {record['month']} is not marked final and live: only the "
                "latest month that is over goes into production"
            )
        with self.lock(symbol):
            current = self.live(symbol)
            if current is not None and current["month"] > record["month"]:
                raise BadInput(
                    f"{current['month']} is live for {symbol}, and {record['month']} is earlier: "
                    f"to put back what it decided, run `retrain rollback {symbol} --to "
                    f"{record['month']}`"
                )
            write_json(self._live(symbol), dict(record))

    def as_taken(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The record in force or kept last if that says the same but for when, else this one.

        So a decision that is taken once more, by a second process or after a kill, has one time.
        """
        symbol = record["symbol"]
        before = [self.live(symbol), *(read_json(file) for file in self._files(symbol)[-1:])]
        same = (one for one in before if one and _timeless(one) == _timeless(record))
        return dict(next(same, record))

    def keep(self, record: Mapping[str, Any]) -> Path:
        """Add a record to the decisions of its stock; returns its file.

        The file is a new one, unless the newest record says the same but for when.
        """
        symbol = _checked(dict(record), "the record to keep")
        with self.lock(symbol):
            files = self._files(symbol)
            if files and _timeless(read_json(files[-1])) == _timeless(record):
                return files[-1]
            number = 1 + (int(files[-1].name.split("_")[0]) if files else 0)
            path = self._folder(symbol) / f"{number:06d}_{record['month']}.json"
            write_json(path, dict(record))
        return path

    def lock(self, symbol: str) -> AbstractContextManager[None]:
        """Hold the right to write a stock's records; `keep` and `set_live` may be called inside.

        Raises BadInput when another thread or process holds it for over a minute.
        """
        path = self.root / ".locks" / f"{checked_symbol(symbol)}.lock"
        busy = f"what is in production for {symbol} is being changed by another process"
        return exclusive(path, seconds=_LOCK_SECONDS, busy=busy)

    def _live(self, symbol: str) -> Path:
        return self.root / checked_symbol(symbol) / LIVE_FILE

    def _folder(self, symbol: str) -> Path:
        return self.root / checked_symbol(symbol) / "decisions"

    def _files(self, symbol: str) -> list[Path]:
        """Files of decisions in the order they were kept; whatever else lies there is not ours."""
        found = self._folder(symbol).glob("*.json")
        return sorted(file for file in found if _DECISION_FILE.fullmatch(file.name))


def _timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "decided_at"}


def _version(value: dict[str, Any]) -> dict[str, Any]:
    try:
        Version.from_json(value)
    except BadInput as error:
        raise ValueError(str(error)) from error
    return value


_Version = Annotated[dict[str, Any], AfterValidator(_version)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class _Champion(_Part):
    champion: _Version
    since: str


class _Pointer(_Part):
    to: str
    version: _Version
    since: str


class _Record(_Part):
    """The fields of a record that others rely on; the rest is for people to read."""

    symbol: Annotated[str, AfterValidator(checked_symbol)]
    month: str = Field(pattern=rf"^{MONTH}$")
    final: bool
    live: bool
    families: dict[str, _Champion]
    pointer: _Pointer

    @model_validator(mode="after")
    def _points_to_what_there_is(self) -> _Record:
        to, there = self.pointer.to, [NAIVE, *self.families]
        if to not in there:
            raise ValueError(f"the pointer names {to!r}, and there is {', '.join(there)}")
        if self.pointer.version["family"] != to:
            raise ValueError(f"the pointer names {to!r} and has a version of another family")
        return self


def _checked(record: object, where: object) -> str:
    """The symbol of a record; raises BadInput, naming the field, unless it is a whole one."""
    try:
        found = _Record.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "all of it"
        raise BadInput(f"{where} is no champion record, {field}: {first['msg']}") from error
    return found.symbol


def _read(path: Path, symbol: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = read_json(path)
        found = _checked(record, path)
    except BadInput as error:
        raise BadInput(
            f"{error}; remove it and materialize the stock's latest champion again"
        ) from error
    if found != symbol:
        raise BadInput(f"{path} is a record of {found}, not of {symbol}: remove it")
    return record
