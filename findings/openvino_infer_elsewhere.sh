#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU, Linux: a synchronous infer() does not compute in the thread that calls it.
#
# Guess: `request.infer()` blocks, so with NUM_STREAMS equal to the number of threads the calling thread does the work; whoever
# wants passes in the background lowers the priority of the threads that call it (setpriority of a thread id, as Linux allows).
# Seen: the caller spends next to nothing and waits. The work is done in threads that compile_model started, at the priority
# that the thread which called compile_model had then. A caller of niceness 10 is served at niceness 0, and the other way round.
# What to do: compile the model a second time in a thread whose priority has been lowered, and call that one for the background.
set -euo pipefail
[ "$(uname)" = Linux ] || { echo "threads have a priority of their own on Linux only"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check openvino==2026.4.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import os
import threading
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as ops


def in_a_thread_of(niceness, call):
    done = []

    def run():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        done.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done[0]


def ticks():
    """Processor time of each thread that is there, and its niceness."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        words = (thread / "stat").read_text().rsplit(")", 1)[1].split()
        found[int(thread.name)] = (int(words[11]) + int(words[12]), int(words[16]))
    return found


size = 512
given = ops.parameter([size, size], np.float32)
node = given
for _ in range(20):
    node = ops.relu(ops.matmul(node, ops.constant(np.full((size, size), 1 / size, np.float32)), False, False))
model = openvino.Model([ops.result(node)], [given])
numbers = np.ones((size, size), np.float32)
cores = len(os.sched_getaffinity(0))
hints = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}


def compiled():
    return openvino.Core().compile_model(model, "CPU", hints).create_infer_request()


def computed_by(request):
    """Processor time of a hundred passes: in the caller, in others, and the niceness where most of it was spent."""
    request.infer({0: numbers})
    before, caller = ticks(), threading.get_native_id()
    for _ in range(100):
        request.infer({0: numbers})
    spent = {thread: (now - before.get(thread, (0, 0))[0], nice) for thread, (now, nice) in ticks().items()}
    others = {thread: one for thread, one in spent.items() if thread != caller}
    return spent[caller][0], sum(one[0] for one in others.values()), max(others.values())[1]


usual = os.getpriority(os.PRIO_PROCESS, 0)
low = usual + 10
for where, at in (("usual", usual), ("low", low)):
    request = in_a_thread_of(at, compiled)
    for caller, called_at in (("usual", usual), ("low", low)):
        mine, others, niceness = in_a_thread_of(called_at, lambda: computed_by(request))
        print(f"compiled at {where} priority, called at {caller}: caller {mine}, others {others} ticks at niceness {niceness}")
        assert others > 10 * mine
        assert niceness == at
PYTHON
