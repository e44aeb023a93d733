"""Stored adapters: whole, reproducible, resumable, and usable on their own base alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from retrain_assets.errors import BadInput, CheckpointError, OutOfMemory, TrainingFailed
from retrain_assets.files import read_json
from retrain_assets.models import lora
from retrain_assets.models.forecaster import ModelLimits, Window, family
from retrain_assets.training import adapters
from retrain_assets.training.adapter_store import AdapterRecord, ModelStore
from retrain_assets.training.policy import PlanOverrides, plan
from retrain_assets.training.splits import make_split
from retrain_assets.training.trainer import Progress
from retrain_assets_tests.tiny import random_walk, write_base

N_BARS = 330
FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "base_weights.json",
    "plan.json",
    "split.json",
    "metrics.json",
    "record.json",
}


def prepared(
    root: Path, *, base: str = "tiny", month: str = "2023-08", **changes: object
) -> adapters.AdapterTraining:
    """A small training run over 330 bars below `root`."""
    limits = ModelLimits(512)
    overrides = PlanOverrides(epochs=3, rank=4, learning_rate=5e-3, loss="huber")
    made = plan(N_BARS, 10.0, "kronos", limits, overrides)
    split = make_split(
        N_BARS, context=made.context, horizon=made.horizon, holdout_days=7, limits=limits
    )
    arguments = {
        "family_name": "kronos",
        "base": base,
        "symbol": "BRK.B",
        "month": month,
        "bars": random_walk(N_BARS),
        "plan": made,
        "split": split,
        "seed": 5,
        "store": ModelStore(root / "models"),
        "checkpoints": root / "checkpoints",
        "device": "cpu",
    }
    return adapters.prepare(**(arguments | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_base(tmp_path / "checkpoints")
    return tmp_path


Stored = tuple[Path, AdapterRecord]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """One adapter trained for all tests that only read or damage a copy of it."""
    folder = tmp_path_factory.mktemp("once")
    write_base(folder / "checkpoints")
    return folder, train(prepared(folder))


@pytest.fixture
def stored(once: Stored, tmp_path: Path) -> Stored:
    """A copy of its folders, and its record."""
    shutil.copytree(once[0], tmp_path / "copy")
    return tmp_path / "copy", once[1]


def train(training: adapters.AdapterTraining) -> AdapterRecord:
    return training.train(report=lambda progress: None).record


def logits(module: torch.nn.Module) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    s1, s2, s1_next = (torch.randint(0, 16, (2, 20), generator=draw) for _ in range(3))
    stamps = torch.zeros(2, 20, 5, dtype=torch.int64)
    with torch.no_grad():
        both: tuple[torch.Tensor, torch.Tensor] = module(s1, s2, stamps, s1_next)
    return torch.cat(both)


def load(root: Path, record: AdapterRecord) -> torch.nn.Module:
    store, checkpoints = ModelStore(root / "models"), root / "checkpoints"
    return adapters.load_adapted(record, store=store, checkpoints=checkpoints, device="cpu").module


def test_a_stored_adapter_reloads_to_the_same_bits(root: Path) -> None:
    training = prepared(root)
    record = train(training)
    again = load(root, record)
    assert torch.equal(logits(training.model.module.eval()), logits(again))
    bare = family("kronos").load("tiny", checkpoints=root / "checkpoints", device="cpu").module
    assert not torch.equal(logits(bare), logits(again))


def test_the_folder_holds_everything_and_nothing_is_left_beside_it(stored: Stored) -> None:
    root, record = stored
    folder = root / "models" / record.folder
    assert {p.name for p in folder.iterdir()} == FILES
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name, "latest.json"]
    assert read_json(folder / "split.json")["dates"]["test"]["last"] == "2020-04-07"
    assert record.plan["rank"] == lora.read_settings(folder).rank == 4
    assert record.metrics["steps"] == len(record.metrics["step_losses"]) > 0
    assert ModelStore(root / "models").latest("kronos", "2023-08", "BRK.B") == record
    assert AdapterRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def without_clock(record: AdapterRecord) -> dict[str, object]:
    value = record.to_json()
    value["metrics"] = {k: v for k, v in value["metrics"].items() if k != "measured"}
    return value


def test_the_same_inputs_give_the_same_adapter_and_others_another(once: Stored, root: Path) -> None:
    first = once[1]
    assert without_clock(train(prepared(root))) == without_clock(first)
    other = train(prepared(root, seed=6))
    assert other.digest != first.digest
    assert other.folder != first.folder


def test_no_bar_of_the_selection_or_test_segment_changes_the_adapter(
    once: Stored, root: Path
) -> None:
    first = once[1]
    bars = random_walk(N_BARS)
    held_out = prepared(root).split.selection.start
    bars.loc[held_out:, ["open", "high", "low", "close"]] *= 1.7
    assert train(prepared(root, bars=bars)).digest == first.digest


def test_the_forecast_uses_the_adapter(stored: Stored) -> None:
    """An adapter that only ever says one coarse token moves the forecast away from the base's."""
    root, record = stored
    folder, checkpoints = root / "models" / record.folder, root / "checkpoints"
    own = family("kronos")
    bars = random_walk(200)
    window = Window(bars.iloc[:192], pd.DatetimeIndex(bars["session"].iloc[192:199]))
    weights = {n: 30 * torch.ones_like(v) for n, v in lora.read_weights(folder).items()}
    adapted = own.load("tiny", checkpoints=checkpoints, device="cpu")
    plain = own.load("tiny", checkpoints=checkpoints, device="cpu")
    adapted.module = lora.load(adapted.module, folder)
    lora.set_adapter_weights(adapted.module, weights)
    settings = [{"temperature": 1.0, "top_k": None, "top_p": None, "num_samples": 20}]
    means = [
        own.forecaster(model, name="x").forecast([window], settings, seed=0).mean
        for model in (adapted, plain)
    ]
    assert np.abs(means[0] - means[1]).max() > 0.01


def test_an_adapter_on_another_base_is_refused(stored: Stored) -> None:
    root, record = stored
    write_base(root / "checkpoints", seed=1)
    with pytest.raises(CheckpointError, match="restore that base, or retrain"):
        load(root, record)


def test_changed_weights_are_refused(stored: Stored) -> None:
    root, record = stored
    folder = root / "models" / record.folder
    save_file({n: v + 1 for n, v in lora.read_weights(folder).items()}, folder / lora.WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="the files were changed"):
        load(root, record)


def test_a_record_that_points_outside_the_store_is_refused(stored: Stored) -> None:
    root, record = stored
    value = record.to_json() | {"folder": "../../checkpoints"}
    with pytest.raises(CheckpointError, match="outside the model store"):
        load(root, AdapterRecord.from_json(value))


@pytest.mark.parametrize("symbol", ["../X", "A/B", "", "aapl", "A..B"])
def test_no_symbol_becomes_a_path_unchecked(root: Path, symbol: str) -> None:
    with pytest.raises(BadInput, match="no usable symbol"):
        prepared(root, symbol=symbol)


def test_wrong_inputs_are_refused_before_any_work(root: Path) -> None:
    with pytest.raises(BadInput, match="its split was made for 330"):
        prepared(root, bars=random_walk(331))
    with pytest.raises(BadInput, match="give at least 1"):
        prepared(root, max_steps=0)
    with pytest.raises(BadInput, match="no month"):
        prepared(root, month="2023-8")
    assert not (root / "models").exists()


@pytest.mark.long
def test_a_warm_start_begins_where_the_earlier_adapter_ended(root: Path) -> None:
    july = train(prepared(root, month="2023-07"))
    store = ModelStore(root / "models")
    assert store.previous("kronos", "2023-08", "BRK.B") == july
    august = train(prepared(root, warm_start=july))
    assert august.metrics["base_validation_loss"] == july.metrics["validation_loss"]
    assert august.metrics["warm_start"] == july.folder


@pytest.mark.long
def test_a_warm_start_from_another_base_is_refused(root: Path) -> None:
    july = train(prepared(root, month="2023-07"))
    write_base(root / "checkpoints", name="other", seed=1)
    with pytest.raises(CheckpointError, match="another base"):
        prepared(root, base="other", warm_start=july)


def test_a_warm_start_that_has_seen_what_decides_is_refused(root: Path) -> None:
    """The selection of a shorter horizon begins later: its adapter has trained further."""
    split = make_split(N_BARS, context=128, horizon=8, holdout_days=3, limits=ModelLimits(512))
    further = train(prepared(root, month="2023-07", split=split))
    with pytest.raises(BadInput, match=r"of 2023-07 was .* bars up to .*: turn warm_start off"):
        prepared(root, warm_start=further)


def told_by(training: adapters.AdapterTraining, **how: bool) -> tuple[adapters.Trained, list[str]]:
    """What came of a training, and what was said of it beside epochs."""
    said: list[str] = []

    def report(now: Progress) -> None:
        said.extend([now.message] if now.message else [])

    return training.train(report=report, **how), said


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "fit", lambda *_, **__: pytest.fail("it was trained"))


@pytest.mark.usefixtures("no_training")
def test_a_stored_adapter_is_taken_and_not_trained_again(stored: Stored) -> None:
    root, record = stored
    assert prepared(root).finished() == record
    trained, said = told_by(prepared(root))
    assert trained == adapters.Trained(record, reused=True)
    (told,) = said
    assert told == f"{root / 'models' / record.folder} is complete already: nothing to train"


@pytest.mark.usefixtures("no_training")
def test_what_died_between_an_adapter_and_its_pointer_is_made_up_for(stored: Stored) -> None:
    root, record = stored
    partition = (root / "models" / record.folder).parent
    (partition / "latest.json").write_text('{"of": "another time"}')
    (partition / ".latest.json.0123456789ab.partial").write_text("{")
    (partition / ".0123456789abcdef.0123456789ab.partial").mkdir()
    (partition / f".{record.folder[-16:]}.training").mkdir()
    told_by(prepared(root))
    assert ModelStore(root / "models").latest("kronos", "2023-08", "BRK.B") == record
    assert {path.name for path in partition.iterdir()} == {record.folder[-16:], "latest.json"}


def test_a_stored_adapter_is_trained_again_when_that_is_asked_for(stored: Stored) -> None:
    root, record = stored
    trained, said = told_by(prepared(root), force=True)
    assert (trained.reused, said) == (False, [])
    assert without_clock(trained.record) == without_clock(record)


def lacking(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def altered_weights(folder: Path) -> None:
    weights = lora.read_weights(folder)
    save_file({n: v + 1 for n, v in weights.items()}, folder / lora.WEIGHTS_FILE)


def other_rank(folder: Path) -> None:
    config = read_json(folder / "adapter_config.json")
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))


HARMS: list[tuple[str, Callable[[Path], None]]] = [
    ("record.json", lambda folder: (folder / "record.json").write_text('{"family": "kron')),
    ("record.json", lambda folder: (folder / "record.json").write_text("[]")),
    ("adapter_model.safetensors", altered_weights),
    ("adapter_model.safetensors", lacking("adapter_model.safetensors")),
    ("adapter_config.json", other_rank),
    ("base_weights.json", lacking("base_weights.json")),
    ("metrics.json", lambda folder: (folder / "metrics.json").write_text("{}")),
]


@pytest.mark.parametrize(("name", "harm"), HARMS)
def test_a_damaged_adapter_is_trained_anew(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, name: str, harm: Callable[[Path], None]
) -> None:
    root, record = stored
    harm(root / "models" / record.folder)
    assert prepared(root).finished() is None
    begun: list[bool] = []

    def training(*_: object, **__: object) -> None:
        begun.append(True)
        raise TrainingFailed("here it would be trained")

    monkeypatch.setattr(adapters, "fit", training)
    said: list[str] = []
    with pytest.raises(TrainingFailed):
        prepared(root).train(report=lambda now: said.append(now.message or ""))
    assert begun == [True]
    assert name in said[0]
    assert said[0].endswith("it is trained anew")


def test_a_damaged_adapter_ends_as_it_was(stored: Stored) -> None:
    root, record = stored
    altered_weights(root / "models" / record.folder)
    trained, _ = told_by(prepared(root))
    assert not trained.reused
    assert without_clock(trained.record) == without_clock(record)
    load(root, trained.record)


def test_what_another_code_or_rung_has_made_is_not_taken(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = stored
    assert prepared(root, rung="longer").finished() is None
    monkeypatch.setattr("retrain_assets.training.adapter_store.code_digest", lambda: "other")
    assert prepared(root).finished() is None


def test_a_base_that_does_not_fit_is_told_apart(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(family("kronos")), "load", short)
    with pytest.raises(OutOfMemory, match="base tiny does not fit"):
        prepared(root)
