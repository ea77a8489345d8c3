"""Charloom over HTTP, compared with other servers of the same weights: ``python -m benchmarks``."""
