"""A worker as served, but its shards are small, its model slow, and each photo that it embeds is written down.

COUNTED is the file that gets a line for each. A worker that finds the file DIE_BEFORE ends before it promotes.
"""

import hashlib
import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path
from unittest import mock

from shared.model.bundle import ModelBundle
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels
from shared.settings import load_settings
from worker.run import run_worker
from worker.serving.engine import Engine
from worker.tasks import reindex

COUNTED = "embedded.txt"
DIE_BEFORE = "die-before-promotion"
SHARD_PHOTOS = 4
_PAUSE_S = 0.04

_home = load_settings().home
_embed, _promote = Engine.embed, reindex._Attempt._promote


def embed(engine: Engine, bundle: ModelBundle, photo: Pixels, **named: object) -> "Future[Embeddings]":
    time.sleep(_PAUSE_S)
    with (_home / COUNTED).open("a") as file:
        file.write(hashlib.sha256(photo.tobytes()).hexdigest() + "\n")
    return _embed(engine, bundle, photo, **named)  # type: ignore[arg-type]


def promote(attempt: "reindex._Attempt", *given: object) -> tuple[bool, str]:
    try:
        Path(_home / DIE_BEFORE).unlink()
    except FileNotFoundError:
        return _promote(attempt, *given)  # type: ignore[arg-type]
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


if __name__ == "__main__":
    with (
        mock.patch.object(Engine, "embed", embed),
        mock.patch.object(reindex._Attempt, "_promote", promote),
        mock.patch.object(reindex, "SHARD_PHOTOS", SHARD_PHOTOS),
    ):
        run_worker()
