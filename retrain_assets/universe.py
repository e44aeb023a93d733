"""What is retrained, read from `universe.yaml`: symbols, their overrides, base models.

Every value is read as text and converted by the schema, so that a symbol such as `ON` is not
taken for a truth value, nor `5e-5` for a word.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WrapValidator,
)

from retrain_assets.errors import BadInput, RetrainError
from retrain_assets.files import checked_symbol, is_month
from retrain_assets.market.calendar import US_STOCKS
from retrain_assets.models.forecaster import family
from retrain_assets.operation import Operation
from retrain_assets.training.policy import PlanOverrides

_SHOWN = 5  # problems of one file that are listed


def _explained(value: Any, handler: Callable[[Any], Any]) -> Any:
    """Let an error of ours pass through pydantic with its own words."""
    try:
        return handler(value)
    except RetrainError as error:
        raise ValueError(str(error)) from error


def _symbol(value: str) -> str:
    try:
        return checked_symbol(value)
    except BadInput as error:
        raise ValueError(str(error)) from error


def _month(value: str) -> str:
    if not is_month(value):
        raise ValueError("write the month as YYYY-MM, such as 2015-01")
    return value


Symbol = Annotated[str, AfterValidator(_symbol)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Stock(BaseModel):
    """One symbol of the universe.

    calendar: a name of exchange_calendars; XNYS for US stocks, 24/7 for coins.
    priority: one of the few that are looked at first.
    active: whether schedule and sensors retrain it; asked for by name it runs all the same.
    aliases: other names its files may carry.
    overrides: values that replace the training policy's for this stock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: Symbol
    calendar: Text = US_STOCKS
    priority: bool = False
    active: bool = True
    aliases: tuple[Text, ...] = ()
    overrides: Annotated[PlanOverrides, WrapValidator(_explained)] = PlanOverrides()


def _family(value: str) -> str:
    try:
        return family(value).name
    except BadInput as error:
        raise ValueError(str(error)) from error


class Universe(BaseModel):
    """All symbols, the first month that can be asked for (YYYY-MM), and what is retrained.

    bases: base model by model family, or `published` for the published one that suits the
    device; the bundled one for a family that is not listed.
    operation: how the system runs by itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_month: Annotated[str, AfterValidator(_month)]
    stocks: Annotated[tuple[Stock, ...], Field(min_length=1)]
    bases: dict[Annotated[str, AfterValidator(_family)], Text] = {}
    operation: Operation = Operation()

    @classmethod
    def load(cls, path: Path) -> Universe:
        """Read a universe file; raises BadInput naming file, line, field and remedy."""
        value, root = _parse(path)
        try:
            universe = cls.model_validate(value)
        except ValidationError as error:
            found = [_told(path, root, value, problem) for problem in error.errors()]
            more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            raise BadInput("\n".join(found[:_SHOWN] + more)) from error
        universe._refuse_shared_names(path)
        return universe

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol, in the order of the file."""
        return tuple(stock.symbol for stock in self.stocks)

    @property
    def aliases(self) -> dict[str, str]:
        """Other names, in capitals, and the symbols they stand for."""
        return {alias.upper(): s.symbol for s in self.stocks for alias in s.aliases}

    def stock(self, name: str, *, stored: Collection[str] = ()) -> Stock:
        """The stock called `name`, by symbol or alias, in either case.

        A symbol that is not listed but has bars (`stored`) is taken as a US stock. Raises
        BadInput for any other name, with names that look like it and the lines to add.
        """
        known = self._by_name()
        if found := known.get(name.upper()):
            return found
        if name.upper() in stored:
            return Stock(symbol=name.upper())
        near = difflib.get_close_matches(name.upper(), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? If not, import" if near else "import"
        raise BadInput(
            f"{name} is not in the universe and has no bars: {hint} it with `retrain import "
            f"FILE --symbol {name.upper()}`; a coin needs the lines `- symbol: {name.upper()}` "
            "and `calendar: 24/7` in universe.yaml first"
        )

    def calendar_of(self, name: str) -> str:
        """Calendar of a symbol whose bars are being imported: if it is not listed, a US stock's."""
        return self.stock(name, stored=[name.upper()]).calendar

    def _by_name(self) -> dict[str, Stock]:
        return {
            name.upper(): stock for stock in self.stocks for name in (*stock.aliases, stock.symbol)
        }

    def _refuse_shared_names(self, path: Path) -> None:
        owner: dict[str, str] = {}
        for stock in self.stocks:
            for name in {stock.symbol, *(alias.upper() for alias in stock.aliases)}:
                if name in owner:
                    raise BadInput(
                        f"{path}: {name} is listed for {owner[name]} and again for "
                        f"{stock.symbol}: keep one of the two"
                    )
                owner[name] = stock.symbol


@dataclass(frozen=True)
class Selection:
    """The symbols of one run, and those that were asked for but have no bars."""

    symbols: tuple[str, ...]
    without_bars: tuple[str, ...] = ()


def select(
    universe: Universe,
    stored: Collection[str],
    *,
    stocks: Sequence[str] = (),
    priority: bool = False,
    everything: bool = False,
) -> Selection:
    """Turn one of --stocks, --priority and --all into symbols that have bars.

    stored: symbols in the bar store. Names given one by one must have bars, or BadInput says
    which do not; of the two groups those without bars are reported and left out. `everything`
    takes in symbols that have bars but are not listed.
    """
    if sum((bool(stocks), priority, everything)) != 1:
        raise BadInput("say which stocks: one of --stocks AAPL NVDA, --priority or --all")
    if stocks:
        chosen = dict.fromkeys(universe.stock(name, stored=stored).symbol for name in stocks)
    elif everything:
        chosen = dict.fromkeys((*universe.symbols, *sorted(stored)))
    else:
        chosen = dict.fromkeys(s.symbol for s in universe.stocks if s.priority)
    missing = tuple(symbol for symbol in chosen if symbol not in stored)
    selection = Selection(tuple(s for s in chosen if s in stored), missing)
    if missing and (stocks or not selection.symbols):
        raise BadInput(
            f"no bars of {', '.join(missing)}: import them with `retrain import FILE`"
            + (f" (there are bars of {', '.join(sorted(stored))})" if stored else "")
        )
    return selection


def _parse(path: Path) -> tuple[Any, yaml.Node]:
    """The file as plain lists, dicts and strings, and as nodes that know their lines."""
    try:
        loader = yaml.BaseLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        if root is None:
            raise BadInput(f"{path} is empty: it must list `first_month` and `stocks`")
        _refuse_repeated_keys(path, root)
        return loader.construct_document(root), root
    except FileNotFoundError as error:
        raise BadInput(f"{path} does not exist: put it back, it lists the symbols") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not valid YAML: {error}") from error


def _refuse_repeated_keys(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise BadInput(
                    f"{path} line {key.start_mark.line + 1}: {key.value} is given twice: "
                    "remove one of them"
                )
            seen.add(key.value)
            _refuse_repeated_keys(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(path, item)


def _told(path: Path, root: yaml.Node, value: Any, problem: Any) -> str:
    """One problem that pydantic found, as file, line, field, symbol and remedy."""
    location: tuple[str | int, ...] = problem["loc"]
    *_, line = _lines(root, location)
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    text = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        text = "unknown field: remove it or correct its name"
    elif problem["type"] == "missing":
        text = "this field is missing: add it"
    elif isinstance(problem["input"], str):
        text += f" (found {problem['input']!r})"
    return f"{path} line {line}, {field or 'the whole file'}{_whose(value, location)}: {text}"


def _whose(value: Any, location: Sequence[str | int]) -> str:
    """` (TSLA)` if the place is within one stock that has a symbol."""
    if len(location) < 2 or location[0] != "stocks" or not isinstance(location[1], int):
        return ""
    stock = value["stocks"][location[1]]
    return f" ({stock['symbol']})" if isinstance(stock, dict) and "symbol" in stock else ""


def _lines(node: yaml.Node, location: Sequence[str | int]) -> Iterator[int]:
    """Line numbers on the way to `location`, as far as the file has it."""
    yield node.start_mark.line + 1
    if not location:
        return
    step, rest = location[0], location[1:]
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        yield from _lines(node.value[step], rest)
    elif isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            if key.value == step:
                yield key.start_mark.line + 1
                if rest:
                    yield from _lines(child, rest)
