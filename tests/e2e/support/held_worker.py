"""A worker as served, but its shards are small, and it stops before each photo for as long as it is told to.

HELD is a directory; while it holds the file `photos-HOSTNAME` no job of a photo goes on here, and `shards-HOSTNAME`
keeps the photos of a reindex. `photos-HOSTNAME-here` tells that one is kept so.
"""

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from worker.run import run_worker
from worker.serving.engine import Engine
from worker.tasks import reindex

HELD = "HELD"
PAUSE = "HELD_PAUSE_S"
SHARD_PHOTOS = 4
_PAUSE_S = float(os.environ.get(PAUSE, "0.1"))  # so that a reindex is long enough to be met in the middle

_held = Path(os.environ[HELD]) if HELD in os.environ else Path()
_embed, _run = Engine.embed, Engine.run


def wait_while_held(what: str) -> None:
    held = _held / f"{what}-{socket.gethostname()}"
    while held.exists():
        held.with_name(f"{held.name}-here").touch()
        time.sleep(0.02)


def embed(*given: Any, **named: Any) -> Any:
    time.sleep(_PAUSE_S)
    wait_while_held("shards")
    return _embed(*given, **named)


def run(*given: Any, **named: Any) -> Any:
    wait_while_held("photos")
    return _run(*given, **named)


if __name__ == "__main__":
    with (
        mock.patch.object(Engine, "embed", embed),
        mock.patch.object(Engine, "run", run),
        mock.patch.object(reindex, "SHARD_PHOTOS", SHARD_PHOTOS),
    ):
        sys.exit(run_worker())
