"""The heavy part: model bundle, embedder, index. Only worker and pipeline may import it."""
