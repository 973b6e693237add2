"""Calls that block are made at once in a program of threads, and beside greenlets in a thread apart, however nested"""

import subprocess
import sys
import threading

import pytest

from shared.blocking import to_thread
from tests import ROOT

_GREENLETS = """
from gevent import monkey; monkey.patch_all()
import gevent, os
from shared.blocking import to_thread

def thread(): return monkey.get_original("threading", "get_ident")()

here, (reader, writer) = thread(), os.pipe()
# More at once than there are threads, each with a call inside: all would wait for ever if that needed a thread too.
found = gevent.joinall([gevent.spawn(to_thread, lambda: (thread(), to_thread(thread))) for _ in range(100)], timeout=30)
assert len(found) == 100
assert all(outer == inner != here for outer, inner in (one.value for one in found))

blocked = gevent.spawn(to_thread, lambda: os.read(reader, 1))
gevent.sleep(0)
assert not blocked.ready()
os.write(writer, b"x")
assert blocked.get(timeout=30) == b"x"

try:
    to_thread(lambda: 1 / 0)
except ZeroDivisionError:
    print("done")
"""


def test_beside_greenlets_another_thread_makes_the_call() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _GREENLETS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.stdout, ran.returncode, ran.stderr) == ("done\n", 0, "")  # an error that is handled is not printed


def test_without_greenlets_the_call_is_made_here() -> None:
    assert to_thread(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        to_thread(lambda: 1 / 0)
