"""Attributes: numbers, inference, values and filters."""
