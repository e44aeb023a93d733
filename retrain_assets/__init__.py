"""Monthly retraining of per-stock forecasting adapters as a Dagster asset graph."""

__version__ = "0.1.0"
