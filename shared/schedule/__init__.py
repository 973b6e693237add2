"""When scheduled reindexes are due: cron expressions, and slots in Redis."""
