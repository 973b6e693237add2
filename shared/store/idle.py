"""Threads that have just run out of work, and wait a while for a word that there is more: it reaches them at once.

So a message, which costs both who sends and who reads it some milliseconds, is needed only where nobody worked of late.

Keys (prefix `lookalike:`):
    idle:{class}   sorted set thread -> until when it waits; no TTL: those who are late are dropped by who looks next
    word:{class}   list with an element for each thread that was called, at most 100; emptied by those who wait
"""

import time
from collections.abc import Callable, Collection
from typing import cast

import redis

from shared.jobs import Priority
from shared.store.records import PREFIX

_LATE_S = 1.0  # clocks of hosts differ, and a thread may be slow to say that it waits no longer

# KEYS: idle:{class} of what there is work for, its word:{class}, then every other idle:{class}. ARGV: now.
# Returns whether a thread was called.
_CALL = """#!lua flags=allow-oom
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local thread = redis.call('ZREVRANGE', KEYS[1], 0, 0)[1]
if not thread then return 0 end
redis.call('ZREM', KEYS[1], thread)
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], thread) end
redis.call('LPUSH', KEYS[2], '1')
redis.call('LTRIM', KEYS[2], 0, 99)
return 1
"""


class IdleThreads:
    """The threads of all workers that could begin at once.

    Args:
        client: its errors pass through unchanged.
        clock: seconds since the epoch.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._clock = clock
        self._call: Callable[..., object] = client.register_script(_CALL)

    def call(self, priority: Priority) -> bool:
        """Have one of them look for work; false when none waits."""
        others = [_idle(other) for other in Priority if other is not priority]
        return self._call(keys=[_idle(priority), _word(priority), *others], args=[repr(self._clock())]) == 1

    def wait(self, thread: str, priorities: Collection[Priority], timeout_s: float) -> bool:
        """Return true as soon as there may be work, or false when nobody had called after `timeout_s`.

        Args:
            thread: a name that no other has.
            priorities: the classes of jobs it takes.
        """
        until = self._clock() + timeout_s + _LATE_S
        with self._redis.pipeline(transaction=False) as pipe:
            for priority in priorities:
                pipe.zadd(_idle(priority), {thread: until})
            pipe.execute()
        # What came between the caller's last look and its name on the list sent a message, as where nobody waits.
        if self._redis.blpop([_word(priority) for priority in priorities], timeout_s):
            return True
        with self._redis.pipeline() as pipe:
            for priority in priorities:
                pipe.zrem(_idle(priority), thread)
            # A name that is gone was called: the word may have come just now, or another thread has taken it.
            return 0 in cast(list[int], pipe.execute())


def _idle(priority: Priority) -> str:
    return f"{PREFIX}idle:{priority}"


def _word(priority: Priority) -> str:
    return f"{PREFIX}word:{priority}"
