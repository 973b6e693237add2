"""Integration tests of what a catalogue is read from."""
