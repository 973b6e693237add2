"""From a catalogue on disk to an index snapshot: what changed, what is known already, is the new one good."""
