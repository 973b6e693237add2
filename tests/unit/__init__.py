"""No network."""
