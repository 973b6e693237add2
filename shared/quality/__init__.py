"""Live quality: what a sample of real searches says of the index and of the photos that are sent."""
