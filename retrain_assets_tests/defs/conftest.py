"""Fixtures of the tests of assets, schedule and sensors."""

from retrain_assets_tests.defs.ticks import daemon, location

__all__ = ["daemon", "location"]
