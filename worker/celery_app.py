"""The Celery application of the workers: `celery -A worker.celery_app worker | beat | inspect ping | events | report`.

Its settings are read from the environment (LOOKALIKE_*) when they are first needed, not when this module is imported.
Where LOOKALIKE_REDIS_URL is not set, the Valkey that `make run` started on this machine is used.
"""

from celery import Celery
from celery.signals import celeryd_after_setup, celeryd_init, setup_logging, worker_init, worker_shutdown

from shared.jobs.celery_config import AMQP_CLASS
from worker.consumer import JobConsumers
from worker.lifecycle import hide_explanations, keep_our_logging, start_worker, stop_worker, take_over
from worker.tasks.registry import register_tasks

app = Celery("lookalike", amqp=AMQP_CLASS, config_source="worker.celery_settings", set_as_current=True)
app.steps["consumer"].add(JobConsumers)
register_tasks(app)

# Celery would set the root logger to its own level, and our events would end there.
setup_logging.connect(keep_our_logging)
celeryd_init.connect(start_worker)
worker_init.connect(take_over)
celeryd_after_setup.connect(hide_explanations)
worker_shutdown.connect(stop_worker)
