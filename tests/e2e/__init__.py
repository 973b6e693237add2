"""gunicorn and Celery as processes."""
