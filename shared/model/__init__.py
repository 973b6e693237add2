"""The model: bundle, network, runtimes. Only worker and pipeline import it."""
