"""Dagster definitions: assets, checks, resources and jobs, one file a stage.

The modules that hold assets do without `from __future__ import annotations`: Dagster reads the
annotations of an asset's arguments and wants them to be types, not text.
"""

import os
import warnings

import dagster as dg

# Checks by partition, mappings between partitions of two dimensions and versions of outputs are
# marked as new in this Dagster, which is pinned; the warnings would greet every run.
warnings.filterwarnings("ignore", "Specifying a partitions_def", dg.PreviewWarning)
warnings.filterwarnings("ignore", "Parameter `data_version`", dg.BetaWarning)
warnings.filterwarnings("ignore", "Parameter `owners`", dg.BetaWarning)
warnings.filterwarnings("ignore", "Class `MultiPartitionMapping`", dg.BetaWarning)

# Read when torch loads its thread pool, which happens later. Threads that spin long while they wait
# cost a factor of ten as soon as another process wants the same core.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
