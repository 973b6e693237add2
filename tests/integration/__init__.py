"""A real Valkey, FAISS, torch; processes, but not the service as a whole."""
