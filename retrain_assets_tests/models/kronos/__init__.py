"""Tests of Kronos."""
