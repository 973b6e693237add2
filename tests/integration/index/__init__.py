"""Indexes, reindexes and pending changes with real FAISS and Milvus Lite."""
