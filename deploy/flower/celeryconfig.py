"""What Flower must know of our Celery: the queues that it shows the length of."""

from kombu import Queue

task_queues = tuple(Queue(name) for name in ("interactive", "bulk", "reindex", "shards", "bulk.duplicates", "webhooks"))
task_default_queue = "interactive"
accept_content = ["json"]
