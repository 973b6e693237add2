"""The model: bundle, network, runtimes. For worker and pipeline only."""
