"""Kronos (Shi et al., arXiv:2508.02739): a foundation model over tokenised bars."""

from retrain_assets.models.kronos.family import FAMILY

__all__ = ["FAMILY"]
