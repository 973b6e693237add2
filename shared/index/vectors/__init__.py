"""Vectors in files: stored in full or in fewer bits, searched exactly or compressed with FAISS, and their writing."""
