"""Settings every test shares."""

from __future__ import annotations

import os

# Test models are tiny: a second thread costs more than it brings, and with one thread results do
# not depend on the machine. Set before torch is imported, so that child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

pytest_plugins = ["retrain_assets_tests.installed", "retrain_assets_tests.finished"]
