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

# For scripts that know P, the prefix of all keys, and NOW: returns whether a thread was called.
CALL_IDLE = """
local function call_idle(class)
  redis.call('ZREMRANGEBYSCORE', P .. 'idle:' .. class, '-inf', NOW)
  local thread = redis.call('ZREVRANGE', P .. 'idle:' .. class, 0, 0)[1]
  if not thread then return false end
  redis.call('ZREM', P .. 'idle:interactive', thread)
  redis.call('ZREM', P .. 'idle:bulk', thread)
  redis.call('LPUSH', P .. 'word:' .. class, '1')
  redis.call('LTRIM', P .. 'word:' .. class, 0, 99)
  return true
end
"""

# KEYS: the prefix. ARGV: now, class.
_CALL = f"""#!lua flags=allow-oom
local P, NOW = KEYS[1], tonumber(ARGV[1])
{CALL_IDLE}
return call_idle(ARGV[2]) and 1 or 0
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
        return self._call(keys=[PREFIX], args=[repr(self._clock()), priority]) == 1

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
            pipe.exists(*(f"{PREFIX}turns:{priority}" for priority in priorities))
            came_meanwhile = pipe.execute()[-1]  # between the caller's last look and its name on the list
        if not came_meanwhile and self._redis.blpop([_word(priority) for priority in priorities], timeout_s):
            return True
        with self._redis.pipeline() as pipe:
            for priority in priorities:
                pipe.zrem(_idle(priority), thread)
            # A name that is gone was called: the word may have come just now, or another thread has taken it.
            return 0 in cast(list[int], pipe.execute()) or bool(came_meanwhile)


def _idle(priority: Priority) -> str:
    return f"{PREFIX}idle:{priority}"


def _word(priority: Priority) -> str:
    return f"{PREFIX}word:{priority}"
