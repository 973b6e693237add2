"""The training loop of a network, and what it runs on: photos as batches, frozen activations, losses, checkpoints."""
