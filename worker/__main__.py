"""`python -m worker`: one worker, configured by the environment."""

import sys

from shared.collector import collector_paused

with collector_paused():
    from shared.errors import CannotStart
    from worker.run import run_worker

if __name__ == "__main__":
    try:
        sys.exit(run_worker())
    except CannotStart as exc:
        sys.exit(f"worker: {exc}")
