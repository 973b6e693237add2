"""Python's library is patched as gevent does it, plugins included, and what is installed is read once"""

import subprocess
import sys

from tests import ROOT

_PATCHED = """
import socket, sys
from importlib import metadata

plain, read = metadata.entry_points, []
def counted(**wanted):
    read.append(wanted)
    return plain(**wanted)
metadata.entry_points = counted

# gevent's own plugin, which is found by its entry point
from gevent import monkey
plugin, events = monkey._subscribe_signal_os, []
monkey._subscribe_signal_os = lambda event: (events.append(event), plugin(event))

from api.http.patching import patch_all
assert "ssl" not in sys.modules  # which nothing may import before
patch_all()
assert metadata.entry_points is counted
assert len(read) == 1, read
assert len(events) == 1
assert all(map(monkey.is_module_patched, ("socket", "ssl", "threading", "time", "subprocess")))
print("done")
"""


def test_plugins_are_found_though_what_is_installed_is_read_once() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PATCHED], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
