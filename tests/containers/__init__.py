"""The compose file on a real engine: `make containers`. Outside `make test`, because it takes an engine and minutes."""
