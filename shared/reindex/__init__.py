"""From a catalogue to a new snapshot: plan, embedding cache, build, quality. Only worker and pipeline import it."""
