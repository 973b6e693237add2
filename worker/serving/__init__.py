"""What answers photo jobs: models in memory, micro-batching, the index that is searched, result cache, tuning."""
