"""What goes into an export: everything is read and checked here before a file is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrain_assets.errors import BadInput, CheckpointError
from retrain_assets.evaluation.production import ProductionStore
from retrain_assets.evaluation.versions import Version
from retrain_assets.export.files import hyperparams, retraining_results
from retrain_assets.export.training import (
    Trained,
    training_config,
    training_log,
    training_metrics,
)
from retrain_assets.files import checked_symbol, read_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.models import lora
from retrain_assets.models.digest import weights_digest
from retrain_assets.models.forecaster import families, family
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore

VALIDATIONS = "hyperparameter_validation_results.json"
REGRESSIONS = "regression_analysis.json"
RETRAINING = "retraining_results.json"
COMPARISONS = "comparison_results"
_ADAPTER_FILES = (lora.CONFIG_FILE, lora.WEIGHTS_FILE, lora.FORM_FILE)


@dataclass
class Tree:
    """An export that is complete but not written.

    copies: files that are taken as they are. objects: contents of JSON files. texts: of others.
    All by their paths below the root. index: the content of the index, save for the files.
    """

    copies: dict[str, Path] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    index: dict[str, Any] = field(default_factory=dict)

    def leave_out(self, what: str, why: str) -> None:
        """List something that is not in the tree, and why."""
        self.index.setdefault("left_out", []).append({"what": what, "why": why})

    def copy(self, name: str, source: Path, *, remedy: str) -> None:
        """Take a file as it is, or list it as left out if it is not there."""
        if source.is_file():
            self.copies[name] = source
        else:
            self.leave_out(name, remedy)


def gather(home: Home, month: str | None) -> Tree:
    """Read and check everything that goes into the tree; errors as `export.export_tree` says."""
    production, stored = ProductionStore(home.production), set(BarStore(home.market).symbols())
    live = {checked_symbol(s): found for s in production.symbols() if (found := production.live(s))}
    kept = [champion for symbol, champion in sorted(live.items()) if symbol in stored]
    chosen = _month(kept, month)
    tree = Tree(index={"month": chosen, "stocks": {}, "left_out": []})
    for symbol in sorted(live.keys() - stored):
        tree.leave_out(symbol, "it has no bars: import them with `retrain import FILE`")
    for champion in kept:
        _add_stock(tree, champion, home)
    _add_month(tree, chosen, home)
    return tree


def _month(champions: Sequence[Mapping[str, Any]], asked: str | None) -> str:
    """The month whose summaries are taken; raises BadInput if no champion was decided on in it."""
    months = sorted({str(champion["month"]) for champion in champions})
    if not months:
        raise BadInput(
            "nothing is in production for any stock that has bars: run `retrain run --priority` "
            "for a month whose bars are complete, which decides on champions"
        )
    if asked is not None and asked not in months:
        raise BadInput(
            f"no champion in production was decided on in {asked}: leave the month out, or choose "
            f"one of {', '.join(months)}"
        )
    return asked or months[-1]


@dataclass(frozen=True)
class _Stock:
    """A stock's champion record, and the comparison it was decided on; None if that is gone."""

    champion: Mapping[str, Any]
    compared: Mapping[str, Any] | None

    @property
    def symbol(self) -> str:
        return str(self.champion["symbol"])

    def in_production(self, name: str) -> bool:
        """Whether a family's champion is what forecasts where no family is named."""
        pointer, own = self.champion["pointer"], self.champion["families"][name]["champion"]
        same = Version.from_json(pointer["version"]).id == Version.from_json(own).id
        return pointer["to"] == name and same

    def candidate(self, name: str) -> Mapping[str, Any]:
        """The month's candidate of a family, as JSON; empty if there is none.

        A month that decided nothing does not name it; then the comparison does.
        """
        if named := self.champion["families"][name]["candidate"]:
            return dict(named)
        return dict((self.compared or {}).get("candidates", {}).get(name, {}).get("version", {}))


def _add_stock(tree: Tree, champion: Mapping[str, Any], home: Home) -> None:
    """Everything of one stock, and its entry in the index."""
    symbol, month, pointer = champion["symbol"], champion["month"], champion["pointer"]
    stock = _Stock(champion, _compared(tree, champion, home))
    entry: dict[str, Any] = {
        "month": month,
        "decided_at": champion["decided_at"],
        "pointer": {
            "to": pointer["to"],
            "version": Version.from_json(pointer["version"]).id,
            "since": pointer["since"],
        },
        "families": {},
    }
    tree.index["stocks"][symbol] = entry
    for name in champion["families"]:
        if name in families():
            entry["families"][name] = _add_family(tree, stock, name, home)
        else:
            tree.leave_out(f"{name} of {symbol}", "there is no such model family any more")
    text = f"{symbol}_comparison.txt"
    tree.copy(
        f"{COMPARISONS}/{text}",
        home.results / COMPARISONS / month / text,
        remedy=f"materialize the comparison of {symbol} {month} again",
    )


def _compared(tree: Tree, champion: Mapping[str, Any], home: Home) -> Mapping[str, Any] | None:
    """The comparison that a champion was decided on; None, and listed, if it is not there."""
    symbol, month = champion["symbol"], champion["month"]
    path = _comparison(home, month, symbol)
    found = read_json(path) if path.is_file() else None
    test = champion["losses"].get("test")  # a month that decided nothing has none
    if found and (test is None or test["cutoff"] == found["losses"]["test"]["cutoff"]):
        return dict(found)
    tree.leave_out(
        f"latency of {symbol}",
        f"the comparison of {month} is gone, or on other origins than its champion was decided on:"
        " materialize comparison and champion again",
    )
    return None


def _add_family(tree: Tree, stock: _Stock, name: str, home: Home) -> dict[str, Any]:
    """Settings, adapter and its training, of one family; returns its entry in the index."""
    part = stock.champion["families"][name]
    version = Version.from_json(part["champion"])
    trained = _trained(tree, stock, name, home)
    if trained:
        _add_adapter(tree, trained, home)
    layout = family(name).export_layout.of(stock.symbol)
    model_path = None if version.adapter is None else layout.model
    used = stock.in_production(name)
    tree.objects[f"hyperparams/{name}/{stock.symbol}.json"] = hyperparams(
        stock.champion, name, compared=stock.compared, model_path=model_path, in_production=used
    )
    entry = {"version": version.id, "title": version.title, "since": part["since"]}
    return entry | {"model_path": model_path, "in_production": used}


def _trained(tree: Tree, stock: _Stock, name: str, home: Home) -> Trained | None:
    """The adapter that is shown: the champion's, else the candidate's, else none.

    Raises CheckpointError if the champion's is gone or altered; a candidate's is left out then.
    """
    own = stock.champion["families"][name]["champion"]["adapter"]
    value = own or stock.candidate(name).get("adapter")
    if value is None:
        return None
    adapter = AdapterRecord.from_json(value)
    try:
        _check_adapter(ModelStore(home.models).path(adapter), adapter)
    except CheckpointError as error:
        if own:
            raise
        tree.leave_out(family(name).export_layout.of(stock.symbol).model, str(error))
        return None
    compared = _comparison(home, adapter.month, stock.symbol)
    return Trained(
        adapter,
        champion=own is not None,
        in_production=own is not None and stock.in_production(name),
        decided_at=stock.champion["decided_at"],
        compared=read_json(compared) if compared.is_file() else None,
    )


def _check_adapter(folder: Path, adapter: AdapterRecord) -> None:
    """Raise CheckpointError if a folder does not hold the adapter that the record is of."""
    settings, plan = lora.read_settings(folder), adapter.plan
    found = weights_digest(lora.read_weights(folder))
    shape = (settings.rank, settings.alpha)
    if found != adapter.digest or shape != (plan["rank"], plan["alpha"]):
        raise CheckpointError(
            f"the adapter in {folder} is not the one that was decided on (digest {found[:12]}, "
            f"rank and alpha {shape}; it had {adapter.digest[:12]}, {plan['rank'], plan['alpha']}):"
            f" restore the folder, or retrain {adapter.symbol} and decide again"
        )


def _add_adapter(tree: Tree, trained: Trained, home: Home) -> None:
    """The adapter's folder, and the three files on its training."""
    adapter = trained.adapter
    layout = family(adapter.family).export_layout.of(adapter.symbol)
    stored = ModelStore(home.models).path(adapter)
    for name in _ADAPTER_FILES:
        if (stored / name).is_file():  # an older folder does not say which weights it adds to
            tree.copies[f"{layout.model}/{name}"] = stored / name
    tree.objects[layout.config] = training_config(trained)
    tree.objects[layout.metrics] = training_metrics(trained)
    tree.texts[layout.log] = training_log(trained)


def _add_month(tree: Tree, month: str, home: Home) -> None:
    """The files on all stocks of a month."""
    folder = home.results / COMPARISONS / month
    summaries = sorted(folder.glob("comparison_summary_h*.json"))
    for source in summaries:
        tree.copies[f"{COMPARISONS}/{source.name}"] = source
    tree.objects[RETRAINING] = retraining_results(
        month,
        [read_json(path) for path in sorted(folder.glob("*_comparison.json"))],
        [read_json(path) for path in summaries],
        list(families()),
    )
    searches = home.results / "validation_results" / month / VALIDATIONS
    if searches.is_file():
        tree.copies[VALIDATIONS] = searches
    else:
        tree.objects[VALIDATIONS] = []  # the file of a month in which nothing was searched
    tree.copy(
        REGRESSIONS,
        home.results / "regression" / month / REGRESSIONS,
        remedy=f"materialize the regression report of {month}",
    )


def _comparison(home: Home, month: str, symbol: str) -> Path:
    return home.results / COMPARISONS / month / f"{symbol}_comparison.json"
