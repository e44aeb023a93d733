"""The pictures of the report: skill by stock and over months, forecasts, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from retrain_assets.evaluation.monthly.drawing import (
    FAINT,
    INK,
    LINE,
    Picture,
    blank,
    picture,
    plain,
    series,
)
from retrain_assets.evaluation.monthly.facts import MonthFacts, candidate_score
from retrain_assets.evaluation.stock_record import scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BY_STOCK = (
    "The diamond is the month's test, a few forecasts only. The bar is the 95 % interval of the "
    "selection's forecasts, with their skill as a dot: a little too good where settings were "
    "chosen there. An arrow lies further left."
)
_BY_MONTH = (
    "Circles are single months, the line is all months so far, in its 95 % interval as soon as "
    "there are months enough."
)
_WIDE = 4.8
_SMALL = (3.4, 1.9)
_WORST = -100.0
"""Skill in % below which a point is drawn at the edge, with an arrow."""
_BEFORE = 24
"""Sessions that are shown before the first forecast."""
_POINTS = 48
"""Points of a line of training losses."""


def skill_by_stock(facts: MonthFacts) -> Picture | None:
    """Skill over naive of every stock's candidates, one line a stock and family.

    Bars are the 95 % interval on the selection's forecasts, the dot in them its skill; the diamond
    is the skill on the test. None where nothing was compared.
    """
    if not facts.usual:
        return None
    records, families = facts.records, list(facts.usual)
    rows = len(records) * len(families)
    height = 0.75 + 0.19 * rows + 0.08 * len(records)
    figure = blank(_WIDE, height, (0.62, 0.45, 0.15, 0.1))
    axes = figure.add_subplot()
    lowest, highest = 0.0, 10.0
    ticks = []
    for place, record in enumerate(records):
        center = -place * (len(families) + 0.5)
        ticks.append(center)
        for nth, family in enumerate(families):
            y = center - (nth - (len(families) - 1) / 2) * 0.8
            values = skills(record, family)
            _draw_skill(axes, y, values, series(nth))
            lowest, highest = min([lowest, *values.values()]), max([highest, *values.values()])
    axes.set_xlim(max(lowest, _WORST) - 6, min(highest, 100) + 6)
    axes.set_ylim(ticks[-1] - len(families) / 2 - 0.4, len(families) / 2 + 0.4)
    axes.axvline(0, color=INK, lw=1)
    axes.set_yticks(ticks, [record["symbol"] for record in records])
    axes.set_xlabel("skill over naive, %")
    plain(axes, size=11)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["bottom"].set_visible(False)
    text = "; ".join(f"{r['symbol']}: {_in_words(r, families)}" for r in records)
    return picture(figure, id="skill-by-stock", title="By stock", text=text, note=_BY_STOCK)


def skills(record: Any, family: str) -> dict[str, float]:
    """Skill over naive in %: `test`, and on the selection `selection`, `low` and `high`.

    What is not known is left out.
    """
    entry = record["candidates"].get(family)
    if entry is None:
        return {}
    test = candidate_score(record, family) or {}
    selection = scored(record, "selection", "holdout").get(entry["name"], {})
    found = {
        "test": test.get("skill"),
        "selection": selection.get("skill"),
        "low": selection.get("skill_low"),
        "high": selection.get("skill_high"),
    }
    return {name: 100 * value for name, value in found.items() if value is not None}


def _draw_skill(axes: Axes, y: float, values: Mapping[str, float], color: str) -> None:
    shown = {name: float(np.clip(value, _WORST, 100)) for name, value in values.items()}
    if {"low", "high"} <= set(shown):
        axes.plot([shown["low"], shown["high"]], [y, y], color=color, lw=2.2, alpha=0.55)
    if "selection" in shown:
        axes.plot([shown["selection"]], [y], marker="o", ms=4.5, color=color)
    if "test" in shown:
        marker = "<" if values["test"] < _WORST else "D"
        axes.plot([shown["test"]], [y], marker=marker, ms=5, mfc="none", color=color, mew=1.2)


def _in_words(record: Any, families: Sequence[str]) -> str:
    parts = []
    for family in families:
        values = skills(record, family)
        if "test" in values:
            parts.append(f"{family} {values['test']:+.1f} % on the test")
    return ", ".join(parts) or "no candidate"


def skill_over_months(facts: MonthFacts) -> Picture | None:
    """Pooled skill of the usual candidates: of each month as a dot, to date as a line.

    The area around the line is its 95 % interval.

    None with fewer than two months.
    """
    months = sorted({entry["month"] for entries in facts.course.values() for entry in entries})
    if len(months) < 2:
        return None
    figure = blank(_WIDE, 2.9, (0.62, 0.45, 0.15, 0.1))
    axes = figure.add_subplot()
    axes.axhline(0, color=INK, lw=1)
    told = []
    for nth, (family, name) in enumerate(facts.usual.items()):
        entries = [e for e in facts.course.get(name, []) if e["to_date"]["skill"] is not None]
        if not entries:
            continue
        _draw_course(axes, [months.index(e["month"]) for e in entries], entries, series(nth))
        told.append(f"{family} {100 * entries[-1]['to_date']['skill']:+.1f} % to date")
    axes.set_xticks(*_few([*range(len(months))], months))
    axes.set_ylabel("skill over naive, %")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, _WORST), min(high, 100))
    plain(axes, size=11)
    text = f"{months[0]} to {months[-1]}: {'; '.join(told) or 'no skill to tell'}"
    title = "All stocks together"
    return picture(figure, id="skill-by-month", title=title, text=text, note=_BY_MONTH)


def _draw_course(
    axes: Axes, x: Sequence[int], entries: Sequence[Mapping[str, Any]], color: str
) -> None:
    to_date = [entry["to_date"] for entry in entries]
    alone = [np.nan if e["skill"] is None else 100 * e["skill"] for e in entries]
    axes.plot(x, alone, marker="o", ms=3.5, lw=0, mfc="none", color=color)
    axes.plot(x, [100 * one["skill"] for one in to_date], color=color, lw=1.8)
    known = [(at, one) for at, one in zip(x, to_date, strict=True) if one["skill_low"] is not None]
    if known:
        low, high = ([100 * one[end] for _, one in known] for end in ("skill_low", "skill_high"))
        axes.fill_between([at for at, _ in known], low, high, color=color, alpha=0.18, lw=0)


def forecast(facts: MonthFacts, symbol: str) -> Picture | None:
    """The month's test forecasts of a stock's candidates against the closes that came.

    A line is the mean forecast, the area around it holds 80 % of what was forecast. None where the
    forecasts were not stored.
    """
    table, record = facts.forecasts.get(symbol), facts.comparisons.get(symbol)
    if table is None or record is None:
        return None
    test = table[table["segment"] == "test"]
    rows = test[test["scope"] == "holdout"]
    if rows.empty:
        return None
    closes = closes_of(test)
    at = pd.Series(range(len(closes)), index=closes.index)
    first = max(0, at[rows["cutoff"].min()] - _BEFORE)
    figure = blank(*_SMALL, (0.5, 0.3, 0.1, 0.08))
    axes = figure.add_subplot()
    names = {family: entry["name"] for family, entry in record["candidates"].items()}
    for _, fan in rows.groupby("cutoff"):
        for nth, family in enumerate(facts.families):
            if names.get(family) in fan:
                _draw_fan(axes, fan, names[family], at, series(nth))
    axes.plot(at[at >= first], closes[at >= first], color=INK, lw=1.2)
    dates = closes.index[first:]
    axes.set_xticks([first, len(closes) - 1], [f"{dates[0]:%d %b %Y}", f"{dates[-1]:%d %b %Y}"])
    plain(axes)
    left, right = axes.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")
    axes.margins(x=0.01)
    axes.locator_params(axis="y", nbins=4)
    count, days = rows["cutoff"].nunique(), record["holdout_days"]
    skill = _in_words(record, list(names))
    text = f"{count} forecasts of {days} sessions against the closes; skill over naive: {skill}"
    return picture(figure, id=f"fan-{slug(symbol)}", title=f"{symbol}, forecasts", text=text)


def closes_of(test: pd.DataFrame) -> pd.Series[float]:
    """Closes by session, of all targets and origins of the test.

    test: of a table of forecasts, the rows of its test.
    """
    targets = test[["ds", "y"]].set_axis(["session", "close"], axis=1)
    origins = test[["cutoff", "origin_close"]].set_axis(["session", "close"], axis=1)
    both = pd.concat([targets, origins]).drop_duplicates("session").sort_values("session")
    return pd.Series(both["close"].to_numpy(), index=pd.DatetimeIndex(both["session"]))


def _draw_fan(axes: Axes, fan: pd.DataFrame, name: str, at: pd.Series[int], color: str) -> None:
    """One forecast, drawn from the close it was made at."""
    close = fan["origin_close"].iloc[0]
    x = [at[fan["cutoff"].iloc[0]], *at[fan["ds"]]]
    low, high = ([close, *fan[f"{name}/{level}"]] for level in ("q10", "q90"))
    axes.fill_between(x, low, high, color=color, alpha=0.2, lw=0)
    axes.plot(x, [close, *fan[name]], color=color, lw=1.4)


def learning(facts: MonthFacts, symbol: str) -> Picture | None:
    """Training and validation losses of a stock's adapters, one pane a family; None without any."""
    found = {f: by[symbol]["metrics"] for f, by in facts.adapters.items() if symbol in by}
    if not found:
        return None
    figure = blank(*_SMALL, (0.5, 0.42, 0.1, 0.25))
    panes = figure.subplots(1, len(found), squeeze=False)[0]
    told = []
    for pane, (family, metrics) in zip(panes, found.items(), strict=True):
        _draw_losses(pane, metrics, series(facts.families.index(family)))
        pane.set_title(family)
        plain(pane)
        told.append(f"{family} {learned(metrics)}")
    title = f"{symbol}, losses in training"
    return picture(figure, id=f"learning-{slug(symbol)}", title=title, text="; ".join(told))


def learned(metrics: Mapping[str, Any]) -> str:
    """How a training went, in a few words."""
    best, epochs = metrics["best_epoch"], metrics["epochs"]
    now, base = metrics["validation_loss"], metrics["base_validation_loss"]
    return f"validation loss {base:.3f} to {now:.3f}, best after epoch {best} of {epochs}"


def _draw_losses(pane: Axes, metrics: Mapping[str, Any], color: str) -> None:
    """Losses by epoch; those of the steps are means over equal stretches."""
    train = np.array([losses["loss"] for losses in metrics["step_losses"]], dtype=np.float64)
    validation = [losses["loss"] for losses in metrics["validations"]]
    epochs = max(len(validation) - 1, 1)
    if len(train):
        parts = np.array_split(train, min(len(train), _POINTS))
        ends = np.cumsum([len(part) for part in parts]) * epochs / len(train)
        pane.plot(ends, [part.mean() for part in parts], color=FAINT, lw=0.9)
    marker = "o" if len(validation) <= _POINTS // 2 else None
    pane.plot(range(len(validation)), validation, color=color, lw=1.4, marker=marker, ms=3)
    if validation:
        pane.axhline(validation[0], color=LINE, lw=1, ls=(0, (3, 3)))
    pane.set_xlabel("epoch")
    pane.set_xticks([0, epochs])
    pane.locator_params(axis="y", nbins=4)


def _few(places: Sequence[int], labels: Sequence[str]) -> tuple[list[int], list[str]]:
    """At most five ticks, the last among them."""
    step = max(1, -(-len(places) // 5))
    kept = list(places)[::-1][::step][::-1]
    return kept, [labels[place] for place in kept]


def slug(symbol: str) -> str:
    """A symbol as part of an id on the page."""
    return "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in symbol)
