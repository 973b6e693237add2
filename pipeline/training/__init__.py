"""Train a network: one loop for all recipes, which hold the hyperparameters."""
