"""Cleaning, building, evaluation and the command line."""
