"""How a worker runs jobs: claim, lease, heartbeat, reaper, dispatch."""
