"""Training on small drawn catalogues."""
