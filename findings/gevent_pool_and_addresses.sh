#!/usr/bin/env bash
# gevent 26.9.0: while the hub's thread pool is full of blocking calls, no greenlet can connect, not even to 127.0.0.1.
#
# Expected: moving a call that blocks (a file lock, SQLite) to `gevent.get_hub().threadpool` keeps it from the others. An
# address in digits needs no lookup, so that connecting to one does not depend on that pool.
# Seen: gevent's resolver looks up every address in the same pool of ten threads, those in digits too. With ten calls of two
# seconds in it, `socket.create_connection(("127.0.0.1", port))` takes two seconds; with the calls in a pool of their own, a
# few milliseconds. A client of Redis or HTTP that has no connection left hangs just so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'gevent==26.9.0'
cat > measure.py <<'PY'
from gevent import monkey

monkey.patch_all()

import socket
import time

import gevent
from gevent.threadpool import ThreadPool

block = monkey.get_original("time", "sleep")
server = socket.create_server(("127.0.0.1", 0))
address = server.getsockname()


def greet():
    while True:
        server.accept()


def connect_s():
    started = time.perf_counter()
    socket.create_connection(address).close()
    return time.perf_counter() - started


gevent.spawn(greet)
hubs = gevent.get_hub().threadpool
took_s = {"idle": connect_s()}
for name, pool in (("own pool full", ThreadPool(hubs.maxsize)), ("hub's pool full", hubs)):
    calls = [pool.spawn(block, 2) for _ in range(hubs.maxsize)]
    took_s[name] = connect_s()
    gevent.joinall(calls)
print(f"threads of the hub's pool: {hubs.maxsize}")
for name, seconds in took_s.items():
    print(f"{name:16s} {seconds:5.2f} s to connect to {address[0]}")
assert hubs.maxsize == 10
assert max(took_s["idle"], took_s["own pool full"]) < 1 < took_s["hub's pool full"]
PY
venv/bin/python measure.py
