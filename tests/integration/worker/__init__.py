"""The worker's engine and job runner."""
