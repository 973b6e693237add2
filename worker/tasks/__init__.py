"""What a worker does, a module a kind of task."""
