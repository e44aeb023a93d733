"""Stored adapters: whole, reproducible, resumable, and usable on their own base alone."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from retrain_assets.errors import BadInput, CheckpointError, RetrainError
from retrain_assets.evaluation.splits import make_split
from retrain_assets.files import read_json
from retrain_assets.models import lora
from retrain_assets.models.forecaster import ModelLimits, Window, family
from retrain_assets.training import adapters
from retrain_assets.training.policy import PlanOverrides, plan
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
        "store": adapters.ModelStore(root / "models"),
        "checkpoints": root / "checkpoints",
        "device": "cpu",
    }
    return adapters.prepare(**(arguments | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_base(tmp_path / "checkpoints")
    return tmp_path


Stored = tuple[Path, adapters.AdapterRecord]


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


def train(training: adapters.AdapterTraining) -> adapters.AdapterRecord:
    return training.train(report=lambda progress: None)


def logits(module: torch.nn.Module) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    s1, s2, s1_next = (torch.randint(0, 16, (2, 20), generator=draw) for _ in range(3))
    stamps = torch.zeros(2, 20, 5, dtype=torch.int64)
    with torch.no_grad():
        both: tuple[torch.Tensor, torch.Tensor] = module(s1, s2, stamps, s1_next)
    return torch.cat(both)


def load(root: Path, record: adapters.AdapterRecord) -> torch.nn.Module:
    store, checkpoints = adapters.ModelStore(root / "models"), root / "checkpoints"
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
    assert adapters.ModelStore(root / "models").latest("kronos", "2023-08", "BRK.B") == record
    assert adapters.AdapterRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def without_clock(record: adapters.AdapterRecord) -> dict[str, object]:
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
        load(root, adapters.AdapterRecord.from_json(value))


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


def test_a_warm_start_begins_where_the_earlier_adapter_ended(root: Path) -> None:
    july = train(prepared(root, month="2023-07"))
    store = adapters.ModelStore(root / "models")
    assert store.previous("kronos", "2023-08", "BRK.B") == july
    august = train(prepared(root, warm_start=july))
    assert august.metrics["base_validation_loss"] == july.metrics["validation_loss"]
    assert august.metrics["warm_start"] == july.folder


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


def test_a_full_disk_is_reported_and_leaves_nothing_half_written(root: Path) -> None:
    training = prepared(root)
    child = _child(root, extra="limit")
    output, _ = child.communicate(timeout=120)
    assert child.returncode == 3, output
    assert "cannot write" in output
    assert os.strerror(errno.EFBIG) in output
    assert not training.folder.exists()
    assert not list((root / "models").rglob("*.partial"))
    assert train(prepared(root)).metrics["stopped"] == "epochs"


def _child(root: Path, extra: str = "") -> subprocess.Popen[str]:
    """A process that trains, printing a line at the end of every epoch."""
    command = [sys.executable, "-m", "retrain_assets_tests.training.test_adapters", str(root)]
    return subprocess.Popen([*command, extra], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "epoch", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
def test_a_killed_run_resumes_to_the_same_adapter(once: Stored, root: Path, epoch: int) -> None:
    child = _child(root)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(f"epoch {epoch + 1 if epoch < 3 else 3}"):
            child.send_signal(signal.SIGKILL)
            break
    child.wait(timeout=60)
    assert child.returncode == -signal.SIGKILL
    resumed_training = prepared(root)
    assert resumed_training.interrupted_notes() == {"mlflow_run": "r1"}
    resumed = train(resumed_training)
    assert resumed.metrics["measured"]["resumed_at_epoch"] in (epoch, epoch - 1)
    whole_root, whole = once
    assert without_clock(resumed) == without_clock(whole)
    for name in FILES - {"metrics.json", "record.json"}:
        ours = (root / "models" / resumed.folder / name).read_bytes()
        assert ours == (whole_root / "models" / whole.folder / name).read_bytes(), name


def main(root: Path, extra: str) -> int:
    """What the child process does: train, or train where no file may grow beyond 2 kB."""
    training = prepared(root)
    if extra == "limit":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
    try:
        training.train(
            report=lambda p: print(f"epoch {p.epoch}", flush=True), notes={"mlflow_run": "r1"}
        )
    except RetrainError as error:
        print(error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
