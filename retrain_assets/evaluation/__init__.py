"""Splits, metrics, significance and reports: what makes a number honest."""
