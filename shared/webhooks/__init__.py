"""Webhooks: which URLs may be called and how messages are signed, and the queue of deliveries."""
