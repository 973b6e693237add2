"""`python -m worker`: one worker, configured by the environment."""

import sys

from shared.errors import CannotStart
from worker.run import run_worker

if __name__ == "__main__":
    try:
        sys.exit(run_worker())
    except CannotStart as exc:
        sys.exit(f"worker: {exc}")
