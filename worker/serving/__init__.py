"""Model serving: models and index in memory, micro-batching, result cache, tuning."""
