"""Comparison, search, promotion and reports: what makes a number honest."""
