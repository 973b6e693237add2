"""The HTTP API: takes requests, writes jobs to Redis, answers with results. Never imports torch, faiss or pandas."""
