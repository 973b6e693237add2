#!/usr/bin/env bash
# gunicorn 27.0.1: a client that asks by `Expect: 100-continue` is told to send its body before the application is called.
#
# Expected: `100 Continue` goes out when the application first reads the body. One that refuses by the head (too large,
# no key) answers 413 or 401 alone, which is what RFC 9110 asks for, and the client keeps its body.
# Seen: with each kind of WSGI worker it goes out while the environment for the application is made, so that the refusal
# comes behind it; a client such as curl, which asks so for bodies above 1 MB, sends all of its body by then. The
# ASGI worker of the same gunicorn waits for the first read. For a service that takes photos the header saves nothing: what
# it refuses still arrives and has to be dropped, unless the proxy in front refuses it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'gunicorn==27.0.1' 'gevent==26.9.0' 'packaging==26.4'
cat > application.py <<'PY'
"""Applications that say no by the head alone and never read the body."""


def refuse(environ, start_response):
    start_response("413 Content Too Large", [("Content-Length", "0"), ("Connection", "close")])
    return [b""]


async def refuse_asgi(scope, receive, send):
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
PY
cat > ask.py <<'PY'
import socket
import subprocess
import sys

HEAD = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
APPLICATIONS = {"sync": "refuse", "gthread": "refuse", "gevent": "refuse", "asgi": "refuse_asgi"}


def statuses(kind):
    """What comes in answer to a head, no byte of its body sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        command = [sys.executable, "-m", "gunicorn", "-k", kind, "-b", f"fd://{number}", "--log-level", "error"]
        more = ["--asgi-lifespan", "off"] if kind == "asgi" else []
        server = subprocess.Popen([*command, *more, f"application:{APPLICATIONS[kind]}"], pass_fds=[number])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(HEAD)
            received = b""
            while b" 413 " not in received and (part := client.recv(4096)):
                received += part
    finally:
        server.terminate()
        server.wait()
    return [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/")]


seen = {kind: statuses(kind) for kind in APPLICATIONS}
for kind, answered in seen.items():
    print(f"{kind:8s} {answered}")
assert seen.pop("asgi") == [413] and list(seen.values()) == [[100, 413]] * 3, "changed"
PY
timeout 120 venv/bin/python ask.py
