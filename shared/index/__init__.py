"""The vector index: snapshots, exact and compressed search, Milvus, delta. Only worker and pipeline import it."""
