"""A real Valkey and FAISS."""
