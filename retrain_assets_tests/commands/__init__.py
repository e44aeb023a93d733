"""Tests of the commands of `retrain`."""
