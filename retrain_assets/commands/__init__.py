"""The commands of `retrain` and what they share; `retrain_assets.cli` puts them together."""
