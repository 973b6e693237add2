"""Names of Celery's tasks and queues: what a message names can be told from its task's id."""

import pytest

from shared.jobs.celery_config import NAMED_QUEUES, QUEUES, TASKS, job_id_of, make_celery, queue_of, task_id
from shared.jobs.contract import JobKind, Priority

JOB_ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(("attempt", "expected"), [(0, JOB_ID), (1, JOB_ID), (2, f"{JOB_ID}.2"), (11, f"{JOB_ID}.11")])
def test_every_attempt_has_a_task_id_and_each_leads_back_to_the_job(attempt: int, expected: str) -> None:
    assert task_id(JOB_ID, attempt) == expected
    assert job_id_of(expected) == JOB_ID


def test_every_kind_of_job_has_a_task_of_its_own() -> None:
    assert set(TASKS) == set(JobKind)
    assert len(set(TASKS.values())) == len(TASKS)


@pytest.mark.parametrize("priority", Priority)
def test_reindexes_and_shards_have_queues_of_their_own_and_others_that_of_their_priority(priority: Priority) -> None:
    expected = dict.fromkeys(JobKind, QUEUES[priority]) | NAMED_QUEUES
    assert {kind: queue_of(kind, priority) for kind in JobKind} == expected


def test_a_queue_is_what_its_messages_are_routed_to_by_default() -> None:
    app = make_celery("redis://127.0.0.1:1/0")
    for kind, queue in NAMED_QUEUES.items():
        assert app.conf.task_routes[TASKS[kind]] == {"queue": queue}
    declared = {queue.name for queue in app.conf.task_queues}
    assert {*QUEUES.values(), *NAMED_QUEUES.values()} < declared
