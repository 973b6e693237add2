"""What a worker does: one named Celery task a kind of job, and one module a subject that does the work."""
