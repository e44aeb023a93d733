"""Fourth stage: inference parameters, searched on held-out sessions and scored once on the test."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from retrain_assets.defs import findings
from retrain_assets.defs.adapters import require_same_bars
from retrain_assets.defs.device import Device
from retrain_assets.defs.io import OPTIONAL, PartitionBars
from retrain_assets.defs.partitions import month_and_symbol, month_stock
from retrain_assets.defs.progress import failing_plainly, tell
from retrain_assets.defs.resources import Models
from retrain_assets.defs.reuse import Reuse, code_version, force_field
from retrain_assets.defs.tracking import TrackedRun, Tracking, partition_tags
from retrain_assets.errors import BadInput
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.models.forecaster import ModelFamily, families
from retrain_assets.operation import GPU, OWNERS

if TYPE_CHECKING:
    from retrain_assets.evaluation.params import ParamsRecord
    from retrain_assets.evaluation.racing import Racing
    from retrain_assets.evaluation.search import SearchResult
    from retrain_assets.models.forecaster import Forecaster, SearchSpace
    from retrain_assets.training.adapter_store import AdapterRecord
    from retrain_assets.training.splits import Split

SCORED = ("naive", "default", "chosen")
"""What is forecast on the test."""


class ParamsConfig(dg.Config):
    """What is searched; by default the family's whole grid on the adapter's own split."""

    holdout_days: int | None = Field(
        None, ge=1, description="Sessions of one forecast; by default the adapter's."
    )
    prediction_length: int | None = Field(
        None, ge=1, description="Bars of the long forecast; by default the adapter's."
    )
    space: dict[str, list[Any | None]] = Field(
        default_factory=dict,
        description="Values to try by setting, null for off; the others keep the family's.",
    )
    subset: int | None = Field(
        None, ge=1, description="How many settings to draw from the grid at random."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "The family's ways to compute. Kronos: compat (upstream: combine filters as the "
            "published sampler does), precision (fp32, bf16), row_budget. Toto: windows_at_once, "
            "paths (drawn beyond a patch of its first generation)."
        ),
    )
    exhaustive: bool = Field(False, description="Try every setting on every origin.")
    racing_level: float | None = Field(
        None, gt=0, lt=0.5, description="Level of the test that drops a setting early."
    )
    first_round: int | None = Field(None, ge=3, description="Origins before any is dropped.")
    next_rounds: int | None = Field(None, ge=1, description="Origins of each later round.")
    seed: int = Field(0, ge=0, description="Seed of every sampled forecast.")
    force: bool = force_field()


def build_params(family: ModelFamily) -> dg.AssetsDefinition:
    """The asset that searches inference parameters of one family's adapters."""

    @dg.asset(
        name=params_name(family.name),
        description=(
            f"Inference parameters of {family.title} for one stock's adapter.\n\nEvery setting of "
            "the grid forecasts the selection origins of the adapter's split; one that cannot win "
            "any more is dropped early. Settings that noise cannot tell from the best give way to "
            "the cheapest of them. The chosen setting, the published one and naive are then scored "
            "once on the test window, which no choice has seen: that is the score to go by. The "
            "lowest error of many on the selection is too low by chance, and the difference is "
            "shown as shrinkage."
        ),
        partitions_def=month_stock,
        group_name="search",
        kinds={"pytorch", "mlflow"},
        owners=OWNERS,
        pool=GPU,
        code_version=code_version(__file__),
        ins={  # what is missing is told in words of ours, below
            "market_bars": dg.AssetIn(metadata=OPTIONAL),
            "adapter": dg.AssetIn(adapter_name(family.name), metadata=OPTIONAL),
        },
    )
    def params(
        context: dg.AssetExecutionContext,
        config: ParamsConfig,
        market_bars: PartitionBars | None,
        adapter: dict[str, Any] | None,
        models: Models,
        device: Device,
        tracking: Tracking,
        reuse: Reuse,
    ) -> dg.Output[dict[str, Any]]:
        with failing_plainly():
            view, trained = _inputs(context, market_bars, adapter, family)
        recipe = reuse.recipe(
            context,
            config,
            files=lambda record: (models.searches(trained) / record["digest"][:16]).iterdir(),
            bars=view.hash,
            adapter=[trained.digest, trained.base, trained.fingerprint, trained.split],
            threads=device.threads,
        )
        if (before := recipe.before()) is not None:
            return before
        from retrain_assets.evaluation.params import write_search

        with failing_plainly(), device.lease() as where:
            task = _prepared(family, config, trained, models, where)
            with _tracked(context, tracking, task, device.threads) as run:
                report = _reporter(context, task.lines)
                record, result = task.run(view, threads=device.threads, report=report)
                folder = write_search(models.searches(trained), record, result)
                maps = findings.search_maps(result)
                findings.log_search(run, record, result.table, folder, maps)
        tell(context, findings.in_words(record), 1.0)
        return recipe.output(
            record.to_json(),
            data_version=dg.DataVersion(record.digest),
            metadata=findings.search_metadata(record, result.table, folder, maps)
            | {"mlflow": run.shown()},
        )

    return params


def params() -> list[dg.AssetsDefinition]:
    """One search asset per model family there is."""
    return [build_params(family) for family in families().values()]


@dataclass(frozen=True)
class _Task:
    """A search about to start: everything loaded and checked, nothing forecast yet.

    space: the values by setting. settings: all that are tried. device: where.
    """

    family: ModelFamily
    config: ParamsConfig
    adapter: "AdapterRecord"
    split: "Split"
    space: "SearchSpace"
    settings: list[dict[str, Any]]
    forecaster: "Forecaster"
    device: str

    @property
    def lines(self) -> int:
        """How many lines the search will report: a round each, the choice, and its scoring."""
        from retrain_assets.evaluation.comparison import occasions

        rules = racing_rules(self.config)
        rounds = len(rules.sizes(self.split.selection_origins)) if rules else 1
        return rounds + 1 + len(SCORED) * len(occasions(self.split))

    def run(
        self, view: PartitionBars, *, threads: int, report: Callable[[str], None]
    ) -> "tuple[ParamsRecord, SearchResult]":
        """Search, and keep what it was about."""
        from retrain_assets.evaluation.params import search_adapter

        return search_adapter(
            self.adapter,
            self.split,
            view.bars,
            self.forecaster,
            self.settings,
            default=self.family.default_settings,
            seed=self.config.seed,
            racing=racing_rules(self.config),
            threads=threads,
            device=self.device,
            options=self.config.options,
            report=report,
        )


def _inputs(
    context: dg.AssetExecutionContext,
    view: PartitionBars | None,
    adapter: dict[str, Any] | None,
    family: ModelFamily,
) -> "tuple[PartitionBars, AdapterRecord]":
    """The bars and the adapter that was trained on them; raises BadInput, saying what to run."""
    from retrain_assets.training.adapter_store import AdapterRecord

    month, symbol = month_and_symbol(context.partition_key)
    if view is None or adapter is None:
        raise BadInput(
            f"no {family.name} adapter of {symbol} {month}: train one with "
            f"`retrain run --stocks {symbol} --month {month}`"
        )
    record = AdapterRecord.from_json(adapter)
    require_same_bars(record, view)
    return view, record


def _prepared(
    family: ModelFamily,
    config: ParamsConfig,
    adapter: "AdapterRecord",
    models: Models,
    device: str,
) -> _Task:
    """Config and adapter to grid, split and forecaster."""
    from retrain_assets.evaluation.search import expand
    from retrain_assets.evaluation.search_split import validation_split
    from retrain_assets.training.adapters import load_adapted
    from retrain_assets.training.splits import Split

    space = dict(family.search_space) | config.space
    settings = expand(space, subset=config.subset, seed=config.seed)
    for setting in settings:
        family.check_settings(setting)
    split = validation_split(
        Split.from_json(adapter.split),
        holdout_days=config.holdout_days,
        prediction_length=config.prediction_length,
        limits=family.limits(adapter.base, checkpoints=models.bases),
        symbol=adapter.symbol,
        month=adapter.month,
    )
    model = load_adapted(adapter, store=models.store(), checkpoints=models.bases, device=device)
    forecaster = family.forecaster(model, name=family.name, options=config.options)
    for setting in settings:
        forecaster.traits(setting)
    return _Task(family, config, adapter, split, space, settings, forecaster, device)


def racing_rules(config: ParamsConfig) -> "Racing | None":
    """How settings are dropped early, None if they are not; raises BadInput out of range."""
    from retrain_assets.evaluation.racing import Racing

    if config.exhaustive:
        return None
    usual = Racing()
    return Racing(
        level=usual.level if config.racing_level is None else config.racing_level,
        first=config.first_round,
        following=config.next_rounds or usual.following,
    )


@contextlib.contextmanager
def _tracked(
    context: dg.AssetExecutionContext, tracking: Tracking, task: _Task, threads: int
) -> Iterator[TrackedRun]:
    """An MLflow run with grid and split as parameters."""
    name = params_name(task.family.name)
    tags = partition_tags(context) | {
        "base": task.adapter.base,
        "adapter": task.adapter.digest,
        "device": task.device,
        "threads": str(threads),
    }
    with tracking.run(name, str(context.partition_key), tags=tags) as run:
        run.link(context, name)
        grid = {f"grid.{name}": list(values) for name, values in task.space.items()}
        split = {f"split.{name}": value for name, value in task.split.to_json().items()}
        own = {"settings": len(task.settings), "seed": task.config.seed}
        run.log_params(
            grid | split | own | {f"options.{n}": v for n, v in task.config.options.items()}
        )
        for note in task.split.notes:
            tell(context, note)
        yield run


def _reporter(context: dg.AssetExecutionContext, lines: int) -> Callable[[str], None]:
    """A callback for the lines that a search reports, of which so many are to come.

    Start and choice are told; the other rounds go to the run's log, and every line to a bar.
    """
    _, symbol = month_and_symbol(context.partition_key)
    count = itertools.count()

    def report(line: str) -> None:
        text = line.removeprefix(f"{symbol}: ")
        told = text.startswith(("round 1:", "chosen"))
        if text.startswith("round") and not told:
            context.log.info(text)
        tell(context, text, min(1.0, next(count) / lines), minor=not told)

    return report
