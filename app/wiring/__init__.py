"""Composition: what the processes of an installation are made of, from its settings."""
