"""NLinear (Zeng et al., arXiv:2205.13504): one linear layer, the least that a family can be."""

from retrain_assets.models.nlinear.family import FAMILY

__all__ = ["FAMILY"]
