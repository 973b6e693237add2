#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU, Linux: processes that use one thread each all compute on the same core.
#
# Guess: INFERENCE_NUM_THREADS says how many threads a model gets, and the kernel places them. So as many processes as there are
# cores, with one thread each, give as many answers as there are cores: that is how servers with a process a core are set up.
# Seen: ENABLE_CPU_PINNING is on by default, and each process counts its cores from the first one. While a pass runs, its thread
# may run on core 0 only, whatever else runs there; two such processes together are as fast as one. The same befalls two processes
# with a thread a core that run one pass each, and containers whose processor time is limited (`--cpus`), since they see all cores.
# After the pass the thread may run everywhere again, so looking at it between passes shows nothing.
# What to do: ENABLE_CPU_PINNING: False, wherever more than one process may compute on a machine. It cost a single one nothing.
set -euo pipefail
[ "$(uname)" = Linux ] || { echo "threads are bound to cores on Linux only"; exit 0; }
[ "$(nproc)" -ge 2 ] || { echo "with one core there is no choice"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
cat >"$work/server.py" <<'PYTHON'
"""Computes for as long as it is told to on standard input, and prints how many passes that were, and on which cores."""
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops

size = 512
given = ops.parameter([size, size], np.float32)
node = given
for _ in range(20):
    node = ops.relu(ops.matmul(node, ops.constant(np.full((size, size), 1 / size, np.float32)), False, False))
model = openvino.Model([ops.result(node)], [given])
hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
if sys.argv[1] == "free":
    hints["ENABLE_CPU_PINNING"] = False
request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
numbers = np.ones((size, size), np.float32)
request.infer({0: numbers})


def bound():
    """Cores of the threads that may not run on all of this process's."""
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        cores = os.sched_getaffinity(int(thread.name))
        if cores != os.sched_getaffinity(0):
            found |= cores
    return found


print("ready", bound(), flush=True)
for line in sys.stdin:
    cores, passes, until = set(), [0], time.monotonic() + float(line)

    def compute():
        while time.monotonic() < until:
            request.infer({0: numbers})
            passes[0] += 1

    caller = threading.Thread(target=compute)
    caller.start()
    while caller.is_alive():
        cores |= bound()
        time.sleep(0.01)
    print(passes[0], sorted(cores), flush=True)
PYTHON
"$work/venv/bin/python" - "$work" <<'PYTHON'
import statistics
import subprocess
import sys

work = sys.argv[1]


def started(how):
    server = subprocess.Popen(
        [f"{work}/venv/bin/python", f"{work}/server.py", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout.readline() == "ready set()\n"  # nothing is bound between passes
    return server


def passes(servers, seconds=1.0):
    """Passes of all servers together, and the cores that they were bound to."""
    for server in servers:
        print(seconds, file=server.stdin, flush=True)
    told = [server.stdout.readline().split(" ", 1) for server in servers]
    return sum(int(n) for n, _ in told), [cores.strip() for _, cores in told]


gains = {}
for how in ("bound", "free"):
    servers = [started(how) for _ in range(2)]
    rounds = [(passes(servers[:1])[0], *passes(servers)) for _ in range(5)]
    gains[how] = statistics.median(both / one for one, both, _ in rounds)
    cores = rounds[-1][2]
    print(f"{how}: two processes do {gains[how]:.2f} times the passes of one; threads are bound to cores {cores}")
    assert cores == (["[0]", "[0]"] if how == "bound" else ["[]", "[]"])
    for server in servers:
        server.stdin.close()
        server.wait()
# On an idle machine 1.0 and 2.0.
assert gains["bound"] < 1.3
assert gains["free"] > gains["bound"] + 0.3
PYTHON
