"""What the C library keeps of the memory that threads have freed, in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

from tests import ROOT

_THREADS = 8
_PROGRAM = f"""
import os, threading
from concurrent.futures import ThreadPoolExecutor
from tests.e2e.support.memory import memory_of
from worker.heap import bound_heap

bound_heap()
at_once = threading.Barrier({_THREADS})

def use(_):
    at_once.wait()  # so that each is a thread of its own
    blocks = [b"x" * (3 << 20) for _ in range(8)]

with ThreadPoolExecutor({_THREADS}) as pool:
    list(pool.map(len, [b"x" * (30 << 20)]))  # glibc takes larger blocks from its arenas from now on
    before = memory_of(os.getpid())[1]
    list(pool.map(use, range({_THREADS})))
    print(memory_of(os.getpid())[1] - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is set is glibc's")
@pytest.mark.parametrize(
    ("told", "kept"),
    [({}, False), ({name: str(64 << 20) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")}, True)],
)
def test_memory_that_threads_have_freed_goes_back_unless_the_environment_says_otherwise(
    told: dict[str, str], kept: bool
) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=ours | told, capture_output=True, text=True, check=True
    )
    assert (float(done.stdout) > 30) is kept  # MB; 24 are used by each thread
