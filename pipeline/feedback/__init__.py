"""Feedback as a table, and what training takes from it."""
