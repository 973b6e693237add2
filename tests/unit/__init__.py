"""No network, no torch, and quick: `make check` runs them."""
