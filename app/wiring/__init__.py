"""Composition: build the parts of an installation from its settings."""
