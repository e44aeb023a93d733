"""What an export says of one adapter and its training, made of stored records alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrain_assets.evaluation.comparison import candidate_name
from retrain_assets.training.adapter_store import AdapterRecord


@dataclass(frozen=True)
class Trained:
    """An adapter whose training the tree tells.

    champion: whether it is of its family's champion, or else of a candidate that was not promoted.
    in_production: whether it is of the version that forecasts by default. decided_at: when the
    champion was last decided on. compared: the `StockRecord` of the adapter's own month, None if
    that is gone.
    """

    adapter: AdapterRecord
    champion: bool
    in_production: bool
    decided_at: str
    compared: Mapping[str, Any] | None

    @property
    def standing(self) -> dict[str, Any]:
        """Which adapter it is and what became of it; the same in each of its files."""
        return {
            "stock": self.adapter.symbol,
            "model": self.adapter.family,
            "month": self.adapter.month,
            "base": self.adapter.base,
            "fingerprint": self.adapter.fingerprint,
            "adapter": self.adapter.digest,
            "champion": self.champion,
            "in_production": self.in_production,
        }


def training_config(trained: Trained) -> dict[str, Any]:
    """What an adapter was trained with, by the names of the old files, then plan and split whole.

    `context_length` is what the windows had, after every cap; `epochs` is the most there could be,
    and `max_steps`, if given, the most optimizer steps. `rung`: of the ladder, for a refinement.
    """
    adapter, plan = trained.adapter, trained.adapter.plan
    return trained.standing | {
        "symbol": adapter.symbol,
        "num_samples": plan["n_bars"],
        "context_length": adapter.split["context"],
        "prediction_length": adapter.split["horizon"],
        "batch_size": plan["effective_batch"],
        "epochs": plan["epochs"],
        "learning_rate": plan["learning_rate"],
        "loss": plan["loss"],
        "use_lora": True,
        "lora_rank": plan["rank"],
        "lora_alpha": plan["alpha"],
        "lora_dropout": plan["dropout"],
        "max_steps": adapter.metrics.get("max_steps"),
        "seed": adapter.seed,
        "warm_start": adapter.metrics["warm_start"],
        "rung": adapter.metrics.get("rung"),
        "bars_hash": adapter.bars_hash,
        "plan": plan,
        "split": adapter.split | {"dates": adapter.split_dates},
        "versions": adapter.versions,
    }


def training_metrics(trained: Trained) -> dict[str, Any]:
    """Losses of a fit and errors of the adapter it gave.

    `train_losses`, `val_losses`: by epoch, from the first; `base_val_loss` is that before any
    step. The adapter is of `best_epoch`, whose loss is `best_val_loss`; `final_val_loss` is of the
    last epoch. `final_val_mae`: price MAE of the adapter with the settings in `val_mae_settings`
    (its family's published ones, save for an adapter of a refinement, which has been compared with
    its chosen ones alone) on the origins of `val_mae_segment`, `val_mae_horizon` sessions ahead;
    null where the month's comparison is gone or is of another adapter. `aggregate`, `per_symbol`:
    the same errors on the test origins. `timestamp`: when the champion was last decided on.
    """
    metrics = trained.adapter.metrics
    train, validation = epoch_losses(trained.adapter)
    return trained.standing | {
        "success": True,
        "timestamp": trained.decided_at,
        "stopped": metrics["stopped"],
        "steps": metrics["steps"],
        "best_epoch": metrics["best_epoch"],
        "base_val_loss": metrics["base_validation_loss"],
        "best_val_loss": metrics["validation_loss"],
        "min_val_loss": metrics["validation_loss"],
        "final_val_loss": validation[-1],
        "final_train_loss": train[-1],
        "train_losses": train,
        "val_losses": validation,
        **_measured(trained),
    }


def training_log(trained: Trained) -> str:
    """The fit as lines to tail: the base before any step, one line an epoch, and how it ended.

    `epoch 3/45`: of the most there could be; `step 96/320`: of those that were taken.
    """
    adapter, metrics = trained.adapter, trained.adapter.metrics
    train, validation = epoch_losses(adapter)
    last, per_epoch = metrics["steps"], _steps_per_epoch(adapter)
    lines = [
        f"{adapter.symbol} {adapter.month} {adapter.family} {adapter.base}: "
        f"{metrics['training_windows']} training windows, rank {adapter.plan['rank']}",
        f"epoch 0/{adapter.plan['epochs']} step 0/{last} "
        f"val_loss={metrics['base_validation_loss']:.6f}",
    ]
    for epoch, (fitted, held_out) in enumerate(zip(train, validation, strict=True), start=1):
        lines.append(
            f"epoch {epoch}/{adapter.plan['epochs']} step {min(epoch * per_epoch, last)}/{last} "
            f"train_loss={fitted:.6f} val_loss={held_out:.6f}"
        )
    lines.append(
        f"ended ({metrics['stopped']}): kept epoch {metrics['best_epoch']} "
        f"val_loss={metrics['validation_loss']:.6f}"
    )
    return "\n".join(lines) + "\n"


def epoch_losses(adapter: AdapterRecord) -> tuple[list[float], list[float]]:
    """Mean training loss and validation loss of each epoch, from the first on."""
    steps = [values["loss"] for values in adapter.metrics["step_losses"]]
    per_epoch = _steps_per_epoch(adapter)
    train = [
        float(np.mean(steps[first : first + per_epoch]))
        for first in range(0, len(steps), per_epoch)
    ]
    return train, [values["loss"] for values in adapter.metrics["validations"][1:]]


def _steps_per_epoch(adapter: AdapterRecord) -> int:
    windows, batch = adapter.metrics["training_windows"], adapter.plan["effective_batch"]
    return math.ceil(int(windows) / int(batch))


def _measured(trained: Trained) -> dict[str, Any]:
    """Errors of the adapter in its month's comparison; see `training_metrics`."""
    found = _comparison_of(trained)
    if found is None or trained.compared is None:
        return {"final_val_mae": None, "final_val_mae_pct": None, "val_mae_segment": None}
    column, settings = found
    rows = {
        row["segment"]: row
        for row in trained.compared["scores"]
        if (row["candidate"], row["scope"]) == (column, "holdout")
    }
    chosen, test = rows["selection"], rows["test"]
    errors = {name: test[name] for name in ("mae", "rmse", "mae_pct", "return_mae", "skill")}
    where = {"segment": "test", "horizon": test["horizon"], "origins": test["origins"]}
    return {
        "final_val_mae": chosen["mae"],
        "final_val_mae_pct": chosen["mae_pct"],
        "val_mae_segment": "selection",
        "val_mae_horizon": chosen["horizon"],
        "val_mae_origins": chosen["origins"],
        "val_mae_settings": settings,
        "aggregate": {"symbols_evaluated": 1, **errors, **where},
        "per_symbol": [{"symbol": trained.adapter.symbol, **errors}],
    }


def _comparison_of(trained: Trained) -> tuple[str, dict[str, Any]] | None:
    """Column that scores the adapter, with its settings; None if it was not compared."""
    family, compared = trained.adapter.family, trained.compared
    candidate = (compared or {}).get("candidates", {}).get(family)
    if compared is None or candidate is None:
        return None
    adapter = candidate["version"]["adapter"]
    if adapter is None or adapter["digest"] != trained.adapter.digest:
        return None
    if candidate["name"] == candidate_name(family, "refined"):
        return candidate["name"], candidate["version"]["settings"]
    return candidate_name(family, "adapter"), compared["zero_shot"][family]["settings"]
