"""Python's start of a part whose host has a wrong clock: by SKEW_S seconds, and right again after SKEW_UNTIL_S.

On PYTHONPATH of a process, it is loaded before anything else. The monotonic clock is right, as on a real host.
"""

import os
import time

if "SKEW_S" in os.environ:
    _skew_s = float(os.environ["SKEW_S"])
    _until = time.monotonic() + float(os.environ.get("SKEW_UNTIL_S", "inf"))
    _right = time.time
    time.time = lambda: _right() + (_skew_s if time.monotonic() < _until else 0.0)
