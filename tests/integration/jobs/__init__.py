"""Job records, queues, schedule and webhooks in a real Valkey."""
