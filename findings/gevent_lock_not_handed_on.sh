#!/usr/bin/env bash
# gevent 26.9.0: a greenlet that releases a lock and takes it again at once keeps out all that wait, as long as it goes on.
#
# Expected: "Waiting greenlets are now awakened in the order in which they waited", says the documentation: between two
# turns of a greenlet that works through a list under a lock, one that waits has its turn, as with asyncio.
# Seen: it has it after the last turn. `release` only notes that somebody is to be awakened in the next round of the loop;
# until then the lock is free, and the greenlet that released it takes it again. The awakened one finds it taken. With
# `gevent.sleep(0)` after each turn the other comes next. In a web server of greenlets, a request that works through
# fifty photos under a semaphore so holds up every other photo until the fiftieth is done; one greenlet a photo does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'gevent==26.9.0'
cat > wait.py <<'PY'
import asyncio

import gevent
from gevent.lock import BoundedSemaphore, RLock

TURNS = 30


def with_gevent(lock, *, yielding=False):
    """Number of turns of the one that have passed when the other, which asks within the fourth, has the lock."""
    passed = 0

    def work():
        nonlocal passed
        for _ in range(TURNS):
            with lock:
                if passed == 3:
                    other.start()
                gevent.sleep(0.01)
                passed += 1
            if yielding:
                gevent.sleep(0)

    def wait():
        with lock:
            return passed

    other = gevent.Greenlet(wait)
    gevent.spawn(work)
    return other.get(timeout=20)


async def with_asyncio():
    lock, passed, other = asyncio.Lock(), 0, None

    async def wait():
        async with lock:
            return passed

    for _ in range(TURNS):
        async with lock:
            if passed == 3:
                other = asyncio.create_task(wait())
            await asyncio.sleep(0.01)
            passed += 1
    return await other


seen = {
    "gevent, BoundedSemaphore": with_gevent(BoundedSemaphore(1)),
    "gevent, RLock": with_gevent(RLock()),
    "gevent, sleep(0) between turns": with_gevent(BoundedSemaphore(1), yielding=True),
    "asyncio, Lock": asyncio.run(with_asyncio()),
}
for name, passed in seen.items():
    print(f"{name:31s} asked in turn 4, got it after turn {passed} of {TURNS}")
assert list(seen.values()) == [TURNS, TURNS, 4, 4], "changed"
PY
timeout 60 venv/bin/python wait.py
