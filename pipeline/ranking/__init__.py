"""Fit re-rankers on feedback, measure them, and promote those that pass the quality gates."""
