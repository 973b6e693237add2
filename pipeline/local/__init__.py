"""`make run`: Valkey, API and worker as supervised processes of one machine."""
