"""A wrong clock for processes that tests start."""
