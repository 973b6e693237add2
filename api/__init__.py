"""The front door: HTTP in, jobs out. Never imports torch, faiss or pandas."""
