#!/usr/bin/env bash
# LitServe 0.2.19: with batching, one request that is refused gets everybody in its batch refused, with its own message.
#
# Guess: `decode_request` and `encode_response` are called for one request each, so that an HTTPException raised there answers
# this request; the others of the batch are computed without it. It is so without batching.
# Seen: four customers send valid numbers and a fifth one that `decode_request` refuses with 422 and a text that names what
# was sent: all five get 422 and the fifth's text. The four are not computed at all, and a client that rightly does not
# repeat a 4xx gives up. What `encode_response` raises for one, after all have been computed, goes to all as well.
# What to do: raise nothing for one request; hand on a mark in place of its input, and make of it an answer that says so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'litserve==0.2.19' 'fastapi==0.165.0' 'starlette==1.10.0' 'uvicorn==0.54.0' \
    'httpx==0.28.1'
cat > serve.py <<'PY'
import sys

import litserve
from fastapi import HTTPException


class Doubling(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        if request["number"] == 13:
            raise HTTPException(422, "13 cannot be read")
        return request["number"]

    def batch(self, numbers):
        return numbers

    def predict(self, numbers):
        return [2 * number for number in numbers] if isinstance(numbers, list) else 2 * numbers

    def unbatch(self, doubled):
        return doubled

    def encode_response(self, output):
        if output == 14:
            raise HTTPException(500, "7 has no answer")
        return {"doubled": output}


if __name__ == "__main__":
    port, size = map(int, sys.argv[1:])
    batching = {"max_batch_size": size, "batch_timeout": 2} if size > 1 else {}
    server = litserve.LitServer(Doubling(**batching), accelerator="cpu", timeout=20)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="critical")
PY
cat > ask.py <<'PY'
import concurrent.futures
import signal
import socket
import subprocess
import sys
import time

import httpx


def ask(port, number):
    answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"number": number}, timeout=30)
    return answer.status_code, answer.json().get("doubled", answer.json().get("detail"))


def answers(size, *groups):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open("log", "w") as log:
        server = subprocess.Popen([sys.executable, "serve.py", str(port), str(size)], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        with concurrent.futures.ThreadPoolExecutor(5) as threads:
            return [list(threads.map(lambda number: ask(port, number), group)) for group in groups]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


groups = [1, 2, 3, 4, 5], [1, 2, 3, 4, 13], [1, 2, 3, 4, 7]
alone, batched = answers(1, *groups), answers(5, *groups)
for group, each, together in zip(groups, alone, batched, strict=True):
    print(f"{group} one by one:  {each}\n{'':{len(str(group))}s} in one batch: {together}")
right = [(200, 2), (200, 4), (200, 6), (200, 8)]
refused, failed = (422, "13 cannot be read"), (500, "7 has no answer")
assert alone == [[*right, (200, 10)], [*right, refused], [*right, failed]]
assert batched[0] == alone[0]
assert batched[1] == [refused] * 5 and batched[2] == [failed] * 5, "changed"
PY
timeout 120 venv/bin/python ask.py
