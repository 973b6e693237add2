"""Build a model bundle and an index snapshot from weights and a catalogue."""
