"""The workshop: claims jobs and runs them. Never imports flask."""

from shared.cores import limit_threads

limit_threads()  # before anything imports numpy, FAISS or torch
