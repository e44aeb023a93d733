"""The code location of the servers that `orchestration` starts; see `no_compute`."""

from benchmarks.no_compute import build, play

play()
defs = build()
