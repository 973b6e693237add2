"""Jobs: their contract, their records in Redis, the queues they wait in."""
