"""Which stored results of a stock's month no longer fit what they were made of."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from functools import cache
from typing import Any

from retrain_assets import __version__
from retrain_assets.evaluation.asset_names import adapter_name, params_name
from retrain_assets.models.forecaster import families

COMPARISON, CHAMPION = "comparison", "champion"
_CODE = "code"  # told from the tags of the materialization, see `code_versions`
OTHER_BARS = "made of other bars than are stored now"

Found = Mapping[str, Mapping[str, Any]]
"""Records of one stock and month by the asset that made them."""


def expected(found: Found) -> list[str]:
    """Family assets a stock should have: of the families it was trained with, else of all."""
    trained = [f for f in families() if adapter_name(f) in found]
    return [name(f) for f in trained or families() for name in (adapter_name, params_name)]


def stale(found: Found, bars_hash: str) -> dict[str, str]:
    """Why assets are stale, by name: other bars, or an adapter that is no longer the stock's.

    bars_hash: of the stored bars up to the month's cut.
    """
    why = {
        name: OTHER_BARS
        for name, record in found.items()
        if record.get("bars_hash", bars_hash) != bars_hash
    }
    compared = found.get(COMPARISON, {}).get("candidates", {})
    for name in families():
        adapter, search = found.get(adapter_name(name)), found.get(params_name(name))
        if adapter and search and search["adapter"] != adapter["digest"]:
            why.setdefault(params_name(name), "searched with another adapter")
        version = compared.get(name, {}).get("version")
        unrefined = version and not version["adapter"]["metrics"].get("rung")
        if adapter and unrefined and version["adapter"]["digest"] != adapter["digest"]:
            why.setdefault(COMPARISON, f"compared another {name} adapter")
    return why


def outdated(found: Found, bases: Mapping[str, str]) -> dict[str, str]:
    """Why assets would come out otherwise today, by name, though nothing beneath them changed.

    bases: by family the base that universe.yaml names, as far as it does. A decision is outdated
    when its comparison was made again. Results of another version of the code or of a library are
    sound, and no longer the ones that a run would give.
    """
    why: dict[str, str] = {}
    for asset, record in found.items():
        if apart := _other_versions(record.get("versions") or {}):
            why[asset] = f"made with {apart}"
    for name in families():
        base = found.get(adapter_name(name), {}).get("base")
        if base is not None and bases.get(name) not in (None, "published", base):
            why[adapter_name(name)] = f"trained on {base}, universe.yaml names {bases[name]}"
    if reason := _other_comparison(found):
        why[CHAMPION] = reason
    return why


def _other_versions(versions: Mapping[str, str]) -> str:
    """What a result was made with that differs from what is installed: `torch 2.12.0`."""
    return ", ".join(
        f"{name} {there}, now {now}"
        for name, there in versions.items()
        if name != _CODE and (now := _installed(name)) != there
    )


@cache  # for 25 stocks it would be looked up 500 times
def _installed(name: str) -> str | None:
    own = {"python": platform.python_version(), "retrain_assets": __version__}
    if name in own:
        return own[name]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _other_comparison(found: Found) -> str | None:
    """Why a decision is not about the comparison that is stored; None if it is."""
    comparison, champion = found.get(COMPARISON), found.get(CHAMPION)
    if comparison is None or champion is None:
        return None
    if champion.get("rolled_back_to") or not champion["final"]:
        return None  # it decided on nothing
    judged = {f: state["candidate"] for f, state in champion["families"].items()}
    for name, entry in comparison["candidates"].items():
        if judged.get(name) != entry["version"]:
            return f"decided on another {name} candidate than was compared"
    return None
