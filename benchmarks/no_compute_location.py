"""The code location of the servers that `orchestration` starts; see `no_compute`."""

from retrain_assets import warm

# Runs are forked from a process that has the location's definitions, as the package's own are.
warm.LOCATIONS.append(__name__)

from benchmarks.no_compute import build, play  # noqa: E402  # which starts that process

play()
defs = build()
