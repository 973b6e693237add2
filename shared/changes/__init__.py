"""Changes made to the index while it serves: their log in Redis, and those a snapshot holds against its catalogue."""
