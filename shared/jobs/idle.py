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

from shared.jobs.contract import Priority
from shared.jobs.records import PREFIX

_LATE_S = 1.0  # clocks of hosts differ, and a thread may be slow to say that it waits no longer

# KEYS: the prefix. ARGV: thread, until when it waits, then the classes it takes. Returns whether it is on the list now,
# which it is not where there is work already.
_JOIN = """#!lua
local P = KEYS[1]
for i = 3, #ARGV do
  if redis.call('EXISTS', P .. 'turns:' .. ARGV[i], P .. 'turns:suspect') > 0 then return 0 end
end
for i = 3, #ARGV do redis.call('ZADD', P .. 'idle:' .. ARGV[i], ARGV[2], ARGV[1]) end
return 1
"""

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
        self._join: Callable[..., object] = client.register_script(_JOIN)

    def call(self, priority: Priority) -> bool:
        """Have one of them look for work; false when none waits."""
        return self._call(keys=[PREFIX], args=[repr(self._clock()), priority]) == 1

    def wait(self, thread: str, priorities: Collection[Priority], timeout_s: float) -> bool:
        """Return true as soon as there may be work, or false when nobody had called after `timeout_s`.

        Args:
            thread: a name that no other has.
            priorities: the classes of jobs it takes.
        """
        until = repr(self._clock() + timeout_s + _LATE_S)
        if self._join(keys=[PREFIX], args=[thread, until, *priorities]) == 0:
            return True
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
