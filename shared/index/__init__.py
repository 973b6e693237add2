"""The vector index: snapshots, exact and compressed search, Milvus, delta index. For worker and pipeline only."""
