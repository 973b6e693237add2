#!/usr/bin/env bash
# openvino 2026.4.1: with CACHE_DIR, `compile_model(path)` goes on answering with the old weights after they were replaced.
#
# Expected: the cache of compiled models is keyed by the model, weights and all, so that a network that was trained anew is
# compiled anew.
# Seen: of a path, it is keyed by name, size and time of the `.xml`; nothing looks at the `.bin`, where all weights are. A
# network trained further has the same `.xml`, byte for byte. If the `.bin` alone is replaced, or both files are and bear
# the same time (as in reproducible images, which give all files one), the old weights answer; LOADED_FROM_CACHE is the
# only sign. `compile_model(read_model(path))` hashes the weights and is right each time. A search service that replaces a
# model's files in place then embeds queries with the old model and searches an index of the new one; a folder of its own
# for each version, or reading first, avoids it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'openvino==2026.4.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import os
import shutil
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13


def save(folder, weight):
    photo = opset13.parameter([1, 4], np.float32, name="photo")
    weights = opset13.constant(np.full((4, 4), weight, np.float32), name="weights")
    embedding = opset13.result(opset13.matmul(photo, weights, False, False, name="embed"), name="embedding")
    Path(folder).mkdir()
    openvino.save_model(openvino.Model([embedding], [photo], "network"), f"{folder}/network.xml")
    os.utime(f"{folder}/network.xml", (1_700_000_000, 1_700_000_000))


for folder, weight in (("first", 1), ("second", 2), ("third", 3)):
    save(folder, weight)
assert Path("first/network.xml").read_bytes() == Path("second/network.xml").read_bytes()

core = openvino.Core()
core.set_property({"CACHE_DIR": "cache"})
seen = {}


def ask(name, model):
    compiled = core.compile_model(model, "CPU")
    seen[name] = float(compiled(np.ones((1, 4), np.float32))[0][0, 0])
    print(f"{name:30s} answers {seen[name]:4.1f}, from the cache: {compiled.get_property('LOADED_FROM_CACHE')}")


shutil.copytree("first", "live")
ask("weights 1", "live/network.xml")
shutil.copy2("second/network.bin", "live")
ask("weights 2, by path", "live/network.xml")
ask("weights 2, read first", core.read_model("live/network.xml"))
for name in ("network.xml", "network.bin"):
    shutil.copy2(f"third/{name}", "live")
ask("both files of weights 3, by path", "live/network.xml")
ask("weights 3, read first", core.read_model("live/network.xml"))
os.utime("live/network.xml")
ask("weights 3, by path, touched", "live/network.xml")
assert list(seen.values()) == [4, 4, 8, 4, 12, 12], "changed"
PY
