"""What is killed, frozen, filled or flooded, and what must hold all the same."""
