"""Attributes of listings: types inferred from a catalogue's columns, values in JSON, and filters on them."""
