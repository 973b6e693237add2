"""From a catalogue to a new snapshot: plan, embedding cache, build, quality gates. For worker and pipeline only."""
