"""What the assets of a model family are called: the graph builds them, reports tell whom to run."""

from __future__ import annotations

from retrain_assets.models.forecaster import families

CONFIRMATION = "confirmation"
"""Asset of a longer holdout."""
_REFINED = "_refined"


def adapter_name(family: str) -> str:
    """Name of the asset that trains a family's adapters."""
    return f"{family}_adapter"


def params_name(family: str) -> str:
    """Name of the asset that searches a family's inference parameters."""
    return f"{family}_params"


def refined_name(family: str) -> str:
    """Name of the asset that refines a family's adapters."""
    return f"{family}{_REFINED}"


def family_of(asset: str) -> str | None:
    """The family whose asset it is; None for those of all families."""
    return next((name for name in families() if asset.startswith(f"{name}_")), None)


def on_request(asset: str) -> bool:
    """Whether an asset is none of `retrain run`, so that running again would not bring it."""
    return asset == CONFIRMATION or asset.endswith(_REFINED)
