"""Intake: which of Celery's queues a worker reads, and how many of their messages it takes at once."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Intake:
    """The messages of some queues.

    Attributes:
        queues: that are read.
        tasks: the names of the tasks that their messages ask for.
        limit: how many of them may be in hand now; 0 while the queues are not to be read.
    """

    queues: tuple[str, ...]
    tasks: frozenset[str]
    limit: Callable[[], int]
