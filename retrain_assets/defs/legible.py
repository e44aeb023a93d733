"""Numbers as Dagster's pages are to show them: as many digits as a person reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import dagster as dg

_DIGITS = 4
_WHOLE = 10.0**_DIGITS
"""From here on digits behind the point say nothing."""


def legible(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with its numbers, in tables too, to four digits; the records keep all of them."""
    return {name: _rounded(value) for name, value in metadata.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dg.TableMetadataValue):
        records = [
            dg.TableRecord({name: _rounded(cell) for name, cell in record.data.items()})
            for record in value.records
        ]
        return dg.MetadataValue.table(records, schema=value.schema)
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{_DIGITS}g}") if abs(value) < _WHOLE else float(round(value))
    return value
