"""Feedback: what people did with the results of searches, kept in Redis and then in the artifact store."""
