"""Scheduled reindexes: cron expressions, and the slots taken, in Redis."""
