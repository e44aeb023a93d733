"""Monthly retraining of per-stock forecasting adapters as a Dagster asset graph."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# By default MKL rounds a row of a product in a way that depends on how many rows there are, on some
# processors even on how many threads. This asks for one way, and has to stand before its first use.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if TYPE_CHECKING:
    from retrain_assets.live import load_forecaster as load_forecaster

__version__ = "0.1.0"
__all__ = ["__version__", "load_forecaster"]


def __getattr__(name: str) -> Any:
    """`load_forecaster`, imported when it is first asked for: the commands start without it."""
    if name != "load_forecaster":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retrain_assets.live import load_forecaster

    return load_forecaster
