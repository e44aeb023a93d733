"""Small pictures for the pages of the assets, inline in Markdown so that no server is needed."""

from __future__ import annotations

import base64
import io
from typing import Any


def loss_curve(metrics: dict[str, Any]) -> str:
    """Training loss by step and validation loss by epoch as a Markdown image.

    metrics: of an adapter record; `step_losses` holds one dict a step, `validations` one an
    epoch from 0, which is the base before any step.
    """
    from matplotlib.figure import Figure

    train = [losses["loss"] for losses in metrics["step_losses"]]
    validation = [losses["loss"] for losses in metrics["validations"]]
    per_epoch = len(train) / max(1, len(validation) - 1)
    figure = Figure(figsize=(6.5, 2.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(range(1, len(train) + 1), train, lw=0.8, alpha=0.6, label="training")
    ends = [min(round(i * per_epoch), len(train)) for i in range(len(validation))]
    axes.plot(ends, validation, marker="o", ms=3, label="validation")
    axes.axhline(validation[0], ls=":", lw=1, color="grey", label="base, validation")
    axes.legend(fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="svg")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return f"![losses](data:image/svg+xml;base64,{encoded})"
