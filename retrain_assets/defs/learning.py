"""How the losses of a training went: small for the page, and the whole picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from retrain_assets.defs.markdown_images import embedded
from retrain_assets.defs.sparks import FAINT, FIRST, spark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retrain_assets.training.adapter_store import AdapterRecord


def learning_shown(record: AdapterRecord) -> dict[str, Any]:
    """Metadata of an adapter's partition."""
    from retrain_assets.evaluation.monthly.facts import MonthFacts
    from retrain_assets.evaluation.monthly.figures import learning

    adapters = {record.family: {record.symbol: record.to_json()}}
    drawn = learning(MonthFacts(record.month, adapters=adapters), record.symbol)
    assert drawn is not None  # there is an adapter
    return {
        "validation": dg.MetadataValue.md(_validation(record.metrics)),
        "learning curve": dg.MetadataValue.md(embedded(drawn)),
    }


def _validation(metrics: Mapping[str, Any]) -> str:
    """Validation losses by epoch, and the base's as a level."""
    from retrain_assets.evaluation.monthly.figures import learned

    losses = [losses["loss"] for losses in metrics["validations"]]
    epochs = range(len(losses))
    lines = {FAINT: (epochs, losses[:1] * len(losses)), FIRST: (epochs, losses)}
    return spark(lines, learned(metrics))
