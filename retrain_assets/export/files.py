"""What an export says of the champions' settings and of the month, made of stored records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from retrain_assets.evaluation.champions import known_column
from retrain_assets.evaluation.comparison import NAIVE
from retrain_assets.evaluation.pooling import relative_losses, skill
from retrain_assets.evaluation.versions import Version


def hyperparams(
    champion: Mapping[str, Any],
    family: str,
    *,
    compared: Mapping[str, Any] | None,
    model_path: str | None,
    in_production: bool,
) -> dict[str, Any]:
    """Content of `hyperparams/<family>/<stock>.json`: what the family's champion forecasts with.

    champion: the stock's champion record. compared: the `StockRecord` it was decided on, None if
    that is gone; then latencies and forecast horizon are null.
    model_path: folder of the adapter below the root of the tree, None for a base alone.
    in_production: whether this is the version that forecasts by default.

    The settings stand at the top level for scripts, and as they are under `config`.
    `context_length` is the number of bars looked back on at most, also where the setting of that
    name is off. `month` is the one decided on, `adapter_month` the one the adapter is of.
    `validation` and `test` are the champion's errors on that month's selection and test origins;
    settings that were chosen on the selection origins look better there than they are.
    """
    part = champion["families"][family]
    version = Version.from_json(part["champion"])
    losses, column = _losses(champion, compared, family, version)
    latency = {"latency_s": None if compared is None else _latency(compared, version)}
    return {
        **version.settings,
        "stock": champion["symbol"],
        "model": family,
        "model_path": model_path,
        "base": version.base,
        "fingerprint": version.fingerprint,
        "month": champion["month"],
        "since": part["since"],
        "adapter_month": version.month or None,
        "version": version.id,
        "context_length": version.settings.get("context_length") or version.context,
        "prediction_length": _plan_horizon(version, compared),
        "options": version.options,
        "seed": version.seed,
        "in_production": in_production,
        "config": {"name": version.title, **version.settings},
        "validation": _errors(losses.get("selection", {}), column) | latency,
        "test": _errors(losses.get("test", {}), column) | latency,
        "windows": {
            "validation": "selection",
            "test": "test",
            "forecast_horizon": compared and compared["holdout_days"],
        },
        "metadata": {"decided_at": champion["decided_at"], "reason": part["decision"]["reason"]},
    }


def retraining_results(
    month: str,
    compared: Sequence[Mapping[str, Any]],
    summaries: Iterable[Mapping[str, Any]],
    names: Sequence[str],
) -> dict[str, Any]:
    """Content of `retraining_results.json`: how the month's retraining went, by family.

    compared: the month's `StockRecord`s. summaries: contents of its comparison summaries, which
    list the stocks that failed. names: of all families.

    A success is an adapter that was trained, loaded from its folder and scored. A stock that
    failed is a failure of every family that was retrained in the month, since none of its
    adapters was scored; `errors` says why. A family that a stock was not retrained with has it in
    neither list.
    """
    results = [found for summary in summaries for found in summary["results"].items()]
    errors = {stock: result["error"] for stock, result in results if result["error"]}
    scored = {record["symbol"]: record for record in compared if record["symbol"] not in errors}
    asked = {name for record in compared for name in record["candidates"]} or set(names)
    lists: dict[str, list[str]] = {}
    for name in names:
        lists[f"{name}_successes"] = sorted(s for s, r in scored.items() if name in r["candidates"])
        lists[f"{name}_failures"] = sorted(errors) if name in asked else []
    return {
        "month": month,
        "stocks_processed": sorted({*scored, *errors}),
        **lists,
        "errors": dict(sorted(errors.items())),
    }


def _losses(
    champion: Mapping[str, Any],
    compared: Mapping[str, Any] | None,
    family: str,
    version: Version,
) -> tuple[Mapping[str, Any], str]:
    """Tables of losses by segment, and the column in them that is the champion's.

    A month that decided nothing has none in its record; then the comparison's, if it has any.
    """
    if champion["losses"]:
        promoted = champion["families"][family]["decision"]["promote"]
        return champion["losses"], f"{family}.{'candidate' if promoted else 'incumbent'}"
    column = None if compared is None else known_column(version, compared)
    return ({}, "") if compared is None or column is None else (compared["losses"], column)


def _errors(table: Mapping[str, Any], column: str) -> dict[str, Any]:
    """Errors of one column beside naive's; null where it was not measured."""
    names = ("price_mae", "pct_return_mae", "naive_price_mae", "skill")
    if column not in table:
        return dict.fromkeys(names) | {"origins": 0}
    own, naive = table[column], table[NAIVE]
    relative = relative_losses(table)[column]
    values = (float(np.mean(own)), float(relative.mean()), float(np.mean(naive)), skill(own, naive))
    return dict(zip(names, values, strict=True)) | {"origins": len(own)}


def _plan_horizon(version: Version, compared: Mapping[str, Any] | None) -> int | None:
    """Bars that the adapter was trained to predict, else those of the month's plan."""
    if version.adapter is not None:
        return int(version.adapter["split"]["horizon"])
    return None if compared is None else int(compared["plan_horizon"])


def _latency(compared: Mapping[str, Any], version: Version) -> float | None:
    """Seconds of one forecast of a version, None if the comparison did not measure it."""
    column = known_column(version, compared)
    return None if column is None else float(compared["latency_s"][column])
