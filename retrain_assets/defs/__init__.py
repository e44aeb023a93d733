"""Dagster definitions: assets, checks, resources and jobs, one file a stage.

The modules that hold assets do without `from __future__ import annotations`: Dagster reads the
annotations of an asset's arguments and wants them to be types, not text.
"""

import warnings

import dagster as dg

# Checks by partition are new in this Dagster, which is pinned; the warning would greet every run.
warnings.filterwarnings("ignore", message="Specifying a partitions_def", category=dg.PreviewWarning)
