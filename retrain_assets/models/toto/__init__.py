"""Toto 1 and 2 (Datadog, arXiv:2505.14766): foundation models over patches of several series."""

from retrain_assets.models.toto.family import FAMILY

__all__ = ["FAMILY"]
