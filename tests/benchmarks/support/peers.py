"""The same network behind other servers, on the same cores: what the service is compared with.

Each takes a JPEG as the body of POST /inference, answers the embedding in base64 and the 13 scores, decodes with the
same decoder and loads the same bundle. The last one takes it in a form, as the service does.

    flask-torch     the older service's way: Flask, gunicorn's sync workers, torch eager, one photo a pass
    mosec-torch     mosec with its dynamic batching, torch eager
    mosec-openvino  mosec with its dynamic batching, the very graph that the service runs
    flask-redis     no network at all: what Flask and Redis cost that do nothing (`redis_peer`)
"""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Embedder
from shared.model.runtimes import OpenVINOEmbedder, TorchEmbedder
from shared.photos.images import decode_photo
from tests import ROOT

if TYPE_CHECKING:
    from flask import Flask

_HOME, _RUNTIME = "PEER_HOME", "PEER_RUNTIME"
NO_NETWORK = "flask-redis"
PEERS = ("flask-torch", "mosec-torch", "mosec-openvino", NO_NETWORK)


def start(peer: str, home: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start one, in a process group of its own."""
    n_cores = len(os.sched_getaffinity(0))
    server, _, runtime = peer.partition("-")
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.support.mosec_peer",
        "--port",
        str(port),
        "--timeout",
        "60000",
        "--log-level",
        "warning",
    ]
    if peer == NO_NETWORK:
        command = [sys.executable, "-m", "tests.benchmarks.support.redis_peer", str(port)]
    elif server == "flask":
        app = "tests.benchmarks.support.peers:flask_app()"
        bind = ["--bind", f"127.0.0.1:{port}", "--workers", str(n_cores), "--timeout", "120", "--log-level", "warning"]
        command = [sys.executable, "-m", "gunicorn", *bind, app]
    # A process a core, each with one thread, wastes nothing on threads that wait for one another.
    environment = {**os.environ, _HOME: str(home), _RUNTIME: runtime, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, stdout=sys.stderr)


def flask_app() -> "Flask":
    """The older service's way of doing it."""
    from flask import Flask, jsonify, request

    app = Flask(__name__)
    answerer = Answerer()

    @app.post("/inference")
    def embed() -> Any:
        return jsonify(answerer.answer([request.get_data()])[0])

    return app


class Answerer:
    """The model in memory, in the runtime that the environment names."""

    def __init__(self) -> None:
        bundle = open_bundle(bundle_store(Path(os.environ[_HOME])))
        self._spec = bundle.manifest.preprocess
        runtime = TorchEmbedder if os.environ[_RUNTIME] == "torch" else OpenVINOEmbedder
        self._embedder: Embedder = runtime(bundle, threads=1)

    def answer(self, photos: list[bytes]) -> list[dict[str, Any]]:
        """The bodies of answers to the bodies of requests, after one pass."""
        pixels = np.stack([decode_photo(photo, self._spec) for photo in photos])
        vectors, scores = self._embedder.embed(pixels)
        return [
            {"embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode(), "scores": row.tolist()}
            for vector, row in zip(vectors, scores, strict=True)
        ]
