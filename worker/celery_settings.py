"""Celery's settings of a worker, as a module: `worker.celery_app` loads it when a setting is first needed."""

from shared.jobs.celery_config import celery_settings as _celery_settings
from shared.redis_address import running_redis_url as _running_redis_url
from shared.settings import load_settings as _load_settings

_SETTINGS = _load_settings()

globals().update(_celery_settings(_running_redis_url(_SETTINGS)))
worker_pool = "worker.consumer:ThreadPool"
worker_send_task_events = _SETTINGS.celery_events
task_send_sent_event = False
beat_scheduler = "worker.schedule:ReindexScheduler"
# Beat looks at Redis so often; nothing is kept in a file.
beat_max_loop_interval = 2
