"""Evaluate a bundle: figures, comparisons and plots."""
