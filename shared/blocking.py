"""Calls that block their thread: files, file locks, SQLite, an object store. Beside greenlets they run in another."""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

_AT_ONCE = 16

T = TypeVar("T")


def to_thread(call: Callable[[], T]) -> T:
    """Make a call that blocks its thread, and return or raise what it does.

    In a process of greenlets, as the API's, they share one thread, and a blocking call would hold up every request. The
    call is made in a thread of a pool, and only the greenlet that asked waits. Anywhere else it is made at once.

        manifest = to_thread(lambda: store.manifest(version))

    Args:
        call: must use neither the current request nor a Redis client, whose connections belong to the greenlets.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return call()
    if not sys.modules["gevent"].get_hub().main_hub:
        return call()  # a thread of the pool makes it already
    result, error = _threads().apply(_outcome, (call,))
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _outcome(call: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What a call returns or raises. gevent prints whatever is raised in its threads, though the caller handles it."""
    try:
        return call(), None
    except Exception as error:
        return None, error


@cache
def _threads() -> Any:
    # Not the hub's own, where host names are looked up: a lock that nobody frees would keep Redis out of reach.
    # By name, because workers, which share this module, come without gevent.
    return importlib.import_module("gevent.threadpool").ThreadPool(_AT_ONCE)
