"""Dagster definitions: assets, checks, resources and jobs, one file a stage."""
