"""Checks of `lookalike doctor`: each is a function that yields findings and changes nothing."""
