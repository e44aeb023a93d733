"""What is stored and unchanged is taken again; whatever is not is computed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from retrain_assets.defs.io import JsonRecords
from retrain_assets.defs.partitions import month_stock, partition_key, register_stocks
from retrain_assets.defs.reuse import INPUTS_TAG, SINCE, Passed, Reuse, force_field
from retrain_assets.files import read_json, write_json
from retrain_assets.home import Home
from retrain_assets.market.bars import BarStore
from retrain_assets.runs import Outcome
from retrain_assets_tests.finished import QUICK, ran
from retrain_assets_tests.installed import MONTH

COMPUTED = ("kronos_adapter", "kronos_params", "comparison", "live_performance")
CHECKS = {"adapter_reloads", "params_reproduce"}


class ToyConfig(dg.Config):
    """Config of an asset that is quickly computed."""

    size: int = 1
    force: bool = force_field()


class Toy:
    """An asset with a check in a folder of its own: what it is made of can be changed."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.inputs, self.code, self.computed, self.checked = {"bars": "a"}, "1", 0, 0
        register_stocks(instance, ["AAA", "BBB"])

    @property
    def file(self) -> Path:
        """What belongs to the record."""
        return self.root / "weights"

    def run(self, symbol: str = "AAA", **config: Any) -> dict[str, Any]:
        """Run asset and check once; returns what the asset gave."""

        @dg.asset(name="toy", partitions_def=month_stock, code_version=self.code)
        def asset(
            context: dg.AssetExecutionContext, config: ToyConfig, reuse: Reuse
        ) -> dg.Output[dict[str, Any]]:
            recipe = reuse.recipe(context, config, files=lambda _: [self.file], **self.inputs)
            if (before := recipe.before()) is not None:
                return before
            self.computed += 1
            self.file.write_text("weights")
            return recipe.output({"size": config.size}, metadata={"count": self.computed})

        @dg.asset_check(asset=asset, partitions_def=month_stock)
        def check(context: dg.AssetCheckExecutionContext, toy: dict[str, Any]) -> Any:
            passed = Passed(context, self.file.read_text() + json.dumps(toy))
            if (before := passed.before()) is not None:
                return before
            self.checked += 1
            return passed.result("looked at", metadata={"n": 1})

        result = dg.materialize(
            [asset, check],
            instance=self.instance,
            partition_key=partition_key(MONTH, symbol),
            run_config={"ops": {"toy": {"config": config}}},
            resources={"reuse": Reuse(root=str(self.root)), "io_manager": JsonRecords(self.root)},
        )
        (evaluation,) = result.get_asset_check_evaluations()
        assert evaluation.passed
        self.said = evaluation.description
        self.made = result.asset_materializations_for_node("toy")[0]
        return result.output_for_node("toy")


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Toy(tmp_path, instance)


def test_the_same_is_computed_once_for_each_partition(toy: Toy) -> None:
    first = toy.run(size=3)
    version = toy.made.tags["dagster/data_version"]
    for _ in range(2):
        assert toy.run(size=3) == first
        assert (toy.computed, toy.checked) == (1, 1)
        assert toy.said == "looked at, as before on the same files"
        assert toy.made.metadata["count"].value == 1
        assert toy.made.tags["dagster/data_version"] == version
    toy.run("BBB", size=3)
    assert (toy.computed, toy.checked) == (2, 2)


@pytest.mark.parametrize("what", ["inputs", "config", "code", "force", "file", "gone", "record"])
def test_what_has_changed_is_computed(toy: Toy, what: str) -> None:
    toy.run()
    config: dict[str, Any] = {"config": {"size": 2}, "force": {"force": True}}.get(what, {})
    if what == "inputs":
        toy.inputs = {"bars": "b"}
    elif what == "code":
        toy.code = "2"
    elif what == "file":
        toy.file.write_text("altered")
    elif what == "gone":
        toy.file.unlink()
    elif what == "record":
        write_json(toy.root / "toy" / MONTH / "AAA.json", {"size": 9})
    assert toy.run(**config) == {"size": 2 if what == "config" else 1}
    assert toy.computed == 2
    assert SINCE not in toy.made.metadata
    # The check looks again where it would see something else.
    assert toy.checked == (2 if what == "config" else 1)


def test_what_was_made_of_something_else_in_between_is_computed(toy: Toy) -> None:
    toy.run(size=1)
    toy.run(size=2)
    assert toy.run(size=1) == {"size": 1}
    assert toy.computed == 3


def again(home: Home, **changed: Any) -> tuple[Outcome, set[str], set[str]]:
    """Run AAA once more: what came of it, the assets that were not computed, and the checks."""
    outcome = ran(home, "AAA", work=replace(QUICK, **changed))["AAA"]
    assert outcome.failures == []
    with dg.DagsterInstance.get() as instance:
        events = [
            record.event_log_entry
            for record in instance.get_records_for_run(
                outcome.run_id,
                of_type={
                    dg.DagsterEventType.ASSET_MATERIALIZATION,
                    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
                },
            ).records
        ]
    made = [e.asset_materialization for e in events if e.asset_materialization]
    checks = [e.dagster_event.event_specific_data for e in events if not e.asset_materialization]
    kept = {m.asset_key.to_user_string() for m in made if SINCE in m.metadata}
    return outcome, kept, {c.check_name for c in checks if "as before" in (c.description or "")}


def stored(home: Home, asset: str) -> Any:
    return read_json(home.assets / asset / MONTH / "AAA.json")


def test_nothing_is_computed_twice(searched: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {asset: stored(searched, asset) for asset in COMPUTED}
    folders = sorted(searched.models.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr("torch.nn.Module.__call__", refuse)  # no model is run
        outcome, kept, checks = again(searched)
    assert (kept, checks) == (set(COMPUTED), CHECKS)
    assert {asset: stored(searched, asset) for asset in COMPUTED} == before
    assert sorted(searched.models.rglob("*")) == folders
    with dg.DagsterInstance.get() as instance:
        wanted = dg.AssetRecordsFilter(
            dg.AssetKey("kronos_adapter"), asset_partitions=[partition_key(MONTH, "AAA")]
        )
        new, old = instance.fetch_materializations(wanted, limit=2).records
    first, second = (record.asset_materialization for record in (old, new))
    assert first
    assert second
    assert second.metadata.keys() - first.metadata.keys() == {SINCE}
    moved = {SINCE, "path"}  # the data folder is a copy, so the record lies elsewhere
    assert without(second.metadata, moved) == without(first.metadata, moved)
    assert second.tags["dagster/data_version"] == first.tags["dagster/data_version"]
    assert second.tags[INPUTS_TAG] == first.tags[INPUTS_TAG]
    # A third time it is still said when it was computed.
    assert again(searched)[1] == set(COMPUTED)
    assert outcome.record == before["comparison"]


def without(values: Any, names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a model was run")


@pytest.mark.long
def test_what_is_forced_is_computed(searched: Home) -> None:
    before = stored(searched, "kronos_adapter")
    _, kept, checks = again(searched, force=True)
    assert kept == set()
    assert checks == set()  # the files are new, if only by the times that are in them
    assert stored(searched, "kronos_adapter")["digest"] == before["digest"]


@pytest.mark.long
def test_a_changed_option_computes_what_depends_on_it(searched: Home) -> None:
    _, kept, _ = again(searched, search=replace(QUICK.search, subset=3))
    assert kept == {"kronos_adapter", "live_performance"}


@pytest.mark.long
@pytest.mark.parametrize("harm", ["altered", "gone"])
def test_files_that_are_not_as_they_were_stored_are_computed_again(
    searched: Home, harm: str
) -> None:
    folder = searched.models / stored(searched, "kronos_adapter")["folder"]
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    if harm == "gone":
        weights.unlink()
    else:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _, kept, _ = again(searched)
    assert "kronos_adapter" not in kept
    assert weights.read_bytes() == whole


@pytest.mark.long
def test_a_record_that_was_edited_is_computed_again(searched: Home) -> None:
    file = searched.assets / "comparison" / MONTH / "AAA.json"
    whole = read_json(file)
    write_json(file, whole | {"winner": "me"})
    _, kept, _ = again(searched)
    assert kept == {"kronos_adapter", "kronos_params", "live_performance"}
    assert stored(searched, "comparison")["winner"] == whole["winner"]


@pytest.mark.long
def test_other_bars_are_computed(searched: Home) -> None:
    store = BarStore(searched.market)
    bars = store.read("AAA").copy()
    bars.loc[10, "volume"] += 1
    store.write("AAA", bars, source="corrected")
    assert again(searched)[1] == set()


@pytest.mark.long
def test_another_base_under_the_same_name_is_noticed(searched: Home) -> None:
    from retrain_assets_tests.tiny import write_base

    (searched.checkpoints / "bases.yaml").rename(searched.checkpoints / "kept.yaml")
    write_base(searched.checkpoints, seed=9)
    (searched.checkpoints / "kept.yaml").rename(searched.checkpoints / "bases.yaml")
    before = stored(searched, "kronos_adapter")["fingerprint"]
    assert again(searched)[1] <= {"live_performance"}
    assert stored(searched, "kronos_adapter")["fingerprint"] != before
