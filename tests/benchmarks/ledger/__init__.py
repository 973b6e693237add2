"""The ledger: the same short jobs and the same kills through this service and through stock Celery."""
