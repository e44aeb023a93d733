"""Inference parameters of a Toto forecast, checked."""

from __future__ import annotations

from dataclasses import dataclass

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import Settings
from retrain_assets.models.toto.predictive import MAX_TEMPERATURE, MIN_TEMPERATURE

NAMES = ("temperature", "use_past_values", "context_length")


@dataclass(frozen=True)
class TotoSettings:
    """Inference parameters of one forecast.

    temperature: tau of p(y)^(1/tau), from 0.1 to 1.25; 1 leaves the distribution alone.
    use_past_values: whether the past of open, high, low and volume is read beside the close's.
    context_length: most bars to look back on, None for all of the window.
    """

    temperature: float
    use_past_values: bool
    context_length: int | None = None

    @classmethod
    def parse(cls, settings: Settings) -> TotoSettings:
        """Check a mapping of the fields; raises BadInput naming the field and its range."""
        for name in NAMES[:2]:
            if name not in settings:
                raise BadInput(f"Toto needs the setting {name!r}")
        for name in settings:
            if name not in NAMES:
                raise BadInput(f"Toto has no setting {name!r}: use {', '.join(NAMES)}")
        tau, past = settings["temperature"], settings["use_past_values"]
        if isinstance(tau, bool) or tau is None or not MIN_TEMPERATURE <= tau <= MAX_TEMPERATURE:
            raise BadInput(
                f"temperature is {tau!r}: give a number from {MIN_TEMPERATURE} to {MAX_TEMPERATURE}"
            )
        if not isinstance(past, bool):
            raise BadInput(f"use_past_values is {past!r}: give true or false")
        length = settings.get("context_length")
        if length is not None and (type(length) is not int or length < 1):
            raise BadInput(
                f"context_length is {length!r}: give a whole number of bars of at least 1, or "
                "None for all of the window"
            )
        return cls(float(tau), past, None if length is None else int(length))
