"""The factory: raw dump -> model -> index, and the command line."""

from shared.cores import limit_threads

limit_threads()  # before anything imports numpy, FAISS or torch
