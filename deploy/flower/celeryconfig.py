"""What Flower must know of our Celery: the queues, which workers cannot be asked for, since they take no commands."""

from kombu import Queue

task_queues = (Queue("lookalike.wake"), Queue("lookalike.wake.bulk"))
task_default_queue = "lookalike.wake"
accept_content = ["json"]
