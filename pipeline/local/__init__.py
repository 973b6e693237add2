"""What `make run` is: Valkey, API and worker as supervised processes of one machine."""
