"""Measurements: one runnable module a question, each prints a table of both sides and the ratio."""
