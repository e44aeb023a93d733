"""How assets tell what they do and why they fail: to Dagster's log and to whoever listens.

The command line listens to the logger `retrain_assets.progress`; each of its records carries a
`Step` as `record.step`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from retrain_assets.defs.partitions import month_and_symbol
from retrain_assets.defs.retries import act_on

LOGGER = logging.getLogger("retrain_assets.progress")


@dataclass(frozen=True)
class Step:
    """Where one partition stands.

    done: share of the asset's work, from 0 to 1, if it is known. minor: of interest only while
    it happens, and not written to the run's events.
    """

    symbol: str
    month: str
    asset: str
    message: str
    done: float | None = None
    minor: bool = False


def tell(
    context: dg.AssetExecutionContext,
    message: str,
    done: float | None = None,
    *,
    minor: bool = False,
    more: str = "",
) -> None:
    """Say where this asset stands; see `Step` for the arguments.

    more: ends the line in the run's events alone, where there is room for it.
    """
    month, symbol = month_and_symbol(context.partition_key)
    asset = context.asset_key.to_user_string()
    if not minor:
        context.log.info(message + more)
    LOGGER.info(message, extra={"step": Step(symbol, month, asset, message, done, minor)})


@contextlib.contextmanager
def failing_plainly() -> Iterator[None]:
    """End an asset that meets an error as `retries` says, in words where there are any."""
    try:
        yield
    except Exception as error:
        act_on(error)
