"""Weights and catalogue to model bundle and index snapshot."""
