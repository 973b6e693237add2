"""A receiver of webhooks, and messages for it."""

from collections.abc import Iterator

import pytest
import redis

from tests.conftest import Clock
from tests.support.webhooks import Outbox, Receiver, serving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving() as receiver:
        yield receiver


@pytest.fixture
def outbox(client: redis.Redis, valkey_url: str, clock: Clock) -> Iterator[Outbox]:
    outbox = Outbox(client, valkey_url, clock)
    yield outbox
    outbox.celery.close()
