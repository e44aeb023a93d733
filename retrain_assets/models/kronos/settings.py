"""How Kronos draws: temperature, filters and number of paths, and the rows they make.

A row is one path under one (temperature, top_k, top_p). Settings that differ in num_samples
alone share rows: the paths of the smaller are the first paths of the larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrain_assets.errors import BadInput
from retrain_assets.models.forecaster import Settings

Compat = Literal["upstream"] | None
"""How top_k and top_p combine: None applies both, "upstream" ignores top_p beside a top_k."""

MAX_SAMPLES = 1000
MIN_TEMPERATURE = 0.01
"""Below it logits would overflow, and the likeliest token is drawn anyway."""


@dataclass(frozen=True)
class KronosSettings:
    """Inference parameters of one forecast.

    temperature: divides the logits; at least 0.01.
    top_k: how many of the likeliest tokens stay; None is off.
    top_p: probability mass of the likeliest tokens that stay, in (0, 1]; None and 1 are off.
    num_samples: paths drawn, from 1 to 1000.
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    num_samples: int

    @classmethod
    def parse(cls, settings: Settings) -> KronosSettings:
        """Check a mapping of all four fields; raises BadInput naming the field and its range."""
        names = ("temperature", "top_k", "top_p", "num_samples")
        for name in names:
            if name not in settings:
                raise BadInput(f"Kronos needs the setting {name!r} (None turns a filter off)")
        for name in settings:
            if name not in names:
                raise BadInput(f"Kronos has no setting {name!r}: use {', '.join(names)}")
        temperature = _number(settings["temperature"])
        if temperature is None or not temperature >= MIN_TEMPERATURE:
            raise _out_of_range(
                settings,
                "temperature",
                f"a number above 0, at least {MIN_TEMPERATURE} (colder is a top_k of 1)",
            )
        top_k = settings["top_k"]
        if top_k is not None and (not _is_whole(top_k) or top_k < 1):
            raise _out_of_range(settings, "top_k", "a whole number of at least 1, or None for off")
        top_p = settings["top_p"]
        if top_p is not None and not 0 < (_number(top_p) or 0) <= 1:
            raise _out_of_range(settings, "top_p", "in (0, 1], or None for off")
        samples = settings["num_samples"]
        if samples is None or not _is_whole(samples) or not 1 <= samples <= MAX_SAMPLES:
            raise _out_of_range(settings, "num_samples", f"a whole number from 1 to {MAX_SAMPLES}")
        return cls(
            temperature=temperature,
            top_k=None if top_k is None else int(top_k),
            top_p=None if top_p is None else float(top_p),
            num_samples=int(samples),
        )

    def filters(
        self, compat: Compat = None, vocabulary: int | None = None
    ) -> tuple[float, int | None, float | None]:
        """Temperature, top_k and top_p that decide a path; equal ones draw equal paths.

        A filter that removes nothing is None: a top_p of 1, a top_k of the whole vocabulary or
        more. With a top_k of 1 there is nothing left for the other two to decide.
        """
        if self.top_k == 1:
            return 1.0, 1, None
        top_p = None if self.top_p == 1.0 or (compat and self.top_k) else self.top_p
        all_stay = self.top_k is None or (vocabulary is not None and self.top_k >= vocabulary)
        return self.temperature, None if all_stay else self.top_k, top_p


@dataclass(frozen=True)
class RowTable:
    """The rows that serve a list of settings; every window is forecast with all of them.

    temperature, top_k, top_p, path: one entry a row. top_k is 0 and top_p is 1 where off.
    shares: for each setting, its rows.
    """

    temperature: NDArray[np.float64]
    top_k: NDArray[np.int64]
    top_p: NDArray[np.float64]
    path: NDArray[np.int64]
    shares: tuple[slice, ...]

    def __len__(self) -> int:
        return len(self.path)

    def chunks(self, rows: int) -> list[NDArray[np.int64]]:
        """All rows in chunks of at most `rows`, rows of the same path close together.

        They share their random numbers, so they are the ones that draw the same tokens.
        """
        by_path = np.argsort(self.path, kind="stable")
        return np.array_split(by_path, -(-len(self) // rows))

    @classmethod
    def build(
        cls,
        settings: Sequence[KronosSettings],
        compat: Compat = None,
        vocabulary: int | None = None,
    ) -> RowTable:
        """Rows for these settings, each distinct path once. Raises BadInput without settings."""
        if not settings:
            raise BadInput("no settings to forecast with: give at least one")
        samples: dict[tuple[float, int | None, float | None], int] = {}
        keys_of = [one.filters(compat, vocabulary) for one in settings]
        for one, key in zip(settings, keys_of, strict=True):
            samples[key] = max(samples.get(key, 0), one.num_samples)
        counts = list(samples.values())
        starts = dict(zip(samples, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        keys = list(samples)
        return cls(
            temperature=np.repeat([t for t, _, _ in keys], counts),
            top_k=np.repeat(np.array([k or 0 for _, k, _ in keys], dtype=np.int64), counts),
            top_p=np.repeat([1.0 if p is None else p for _, _, p in keys], counts),
            path=np.concatenate([np.arange(n) for n in counts]),
            shares=tuple(
                slice(starts[key], starts[key] + one.num_samples)
                for one, key in zip(settings, keys_of, strict=True)
            ),
        )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    return float(value) if math.isfinite(value) else None


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _out_of_range(settings: Settings, name: str, demand: str) -> BadInput:
    return BadInput(f"Kronos setting {name!r} must be {demand}, not {settings[name]!r}")
