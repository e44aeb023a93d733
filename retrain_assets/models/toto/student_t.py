"""Functions of the Student-T distribution.

scipy is imported where it is used, since this layer is also read where there is none.
"""

from __future__ import annotations

import numpy as np

from retrain_assets.models.toto.predictive import Floats


def student_cdf(df: Floats, z: Floats) -> Floats:
    """Probability of at most z under a standard Student-T."""
    from scipy.special import stdtr

    return np.asarray(stdtr(df, z), dtype=np.float64)


def student_quantile(df: Floats, level: Floats) -> Floats:
    """The standard Student-T's quantile."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(df, level), dtype=np.float64)


def log_peak(df: Floats, scale: Floats) -> Floats:
    """Logarithm of a Student-T's density at its mode."""
    from scipy.special import poch

    # A quotient of gamma functions as one function: their logarithms would cancel at a high df.
    peak: Floats = np.log(poch(df / 2, 0.5)) - np.log(df * np.pi) / 2 - np.log(scale)
    return peak
