"""Charloom over HTTP beside other ways to serve the same weights; see ``python -m benchmarks``."""
