"""Threads that have just run out of work, and wait a while for a word that there is more: it reaches them at once.

So a message, which costs both who sends and who reads it some milliseconds, is needed only where nobody worked of late.

Keys (prefix `lookalike:`):
    idle:{class}   sorted set @thread -> until when it waits; no TTL: those who are late are dropped by who looks next
    word:@{thread} list with an element when that thread was called; a minute, or until it has looked
    word:{class}   the same from APIs of earlier builds, for whichever thread is first; emptied by those who wait
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import redis

from shared.jobs.contract import Priority
from shared.jobs.records import PREFIX
from shared.lua import load_script
from shared.redis_clock import RedisClock

_LATE_S = 1.0  # clocks of hosts differ, and a thread may be slow to say that it waits no longer

_LUA = Path(__file__).parent / "lua"
_JOIN = load_script(_LUA / "join_idle.lua")
_CALL = load_script(_LUA / "call.lua", flags=("allow-oom",), include=("call_idle.lua",))


class IdleThreads:
    """The threads of all workers that could begin at once.

    Args:
        client: its errors pass through unchanged.
        clock: returns seconds since the epoch; None: Redis's own clock.
    """

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] | None = None) -> None:
        self._redis = client
        self._clock = clock or RedisClock(client)
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
        name, until = f"@{thread}", repr(self._clock() + timeout_s + _LATE_S)
        if self._join(keys=[PREFIX], args=[name, until, *priorities]) == 0:
            return True
        if self._redis.blpop([_word(name), *map(_word, priorities)], timeout_s):
            return True
        with self._redis.pipeline() as pipe:
            pipe.delete(_word(name))
            for priority in priorities:
                pipe.zrem(_idle(priority), name)
            # A name that is gone was called: the word has come just now.
            return 0 in cast(list[int], pipe.execute()[1:])


def _idle(priority: Priority) -> str:
    return f"{PREFIX}idle:{priority}"


def _word(name: str) -> str:
    return f"{PREFIX}word:{name}"
