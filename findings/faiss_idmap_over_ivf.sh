#!/usr/bin/env bash
# faiss-cpu 1.15.1: `IndexIDMap` around an IVF index answers with ids of other vectors once anything has been removed.
#
# Expected: the wrapper that gives an index ids of one's own works with each kind of index that can remove. `remove_ids`
# says how many it removed, or raises where it cannot.
# Seen: it removes the right number and raises nothing, and from then on a stored vector, searched for, is found at
# distance 0 under the id of another one; those of the last places answer -1. A flat index moves its rows up when one is
# removed, and the wrapper moves its ids up with them; an IVF index keeps its numbers, so that the two come apart. Without
# the wrapper (`add_with_ids` of the IVF index itself) all ids stay right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import faiss
import numpy as np

vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
ids = np.arange(3000) * 10
removed, asked = ids[[2, 50]], [0, 100, 1000, 2999]


def ids_found(spec):
    index = faiss.index_factory(16, spec)
    index.train(vectors)
    index.add_with_ids(vectors, ids)
    assert index.remove_ids(removed) == len(removed)
    parameters = faiss.SearchParametersIVF(nprobe=16) if "IVF" in spec else None
    distances, found = index.search(vectors[asked], 1, params=parameters)
    assert (distances[found >= 0] < 1e-6).all()  # each finds itself, whatever it is called
    return found.ravel().tolist()


answers = {spec: ids_found(spec) for spec in ("IDMap,Flat", "IVF16,Flat", "IDMap,IVF16,Flat")}
print(f"{'ids of the vectors asked for':28s} {ids[asked].tolist()}")
for spec, found in answers.items():
    print(f"{spec:28s} {found}")
assert answers["IDMap,Flat"] == answers["IVF16,Flat"] == ids[asked].tolist()
assert answers["IDMap,IVF16,Flat"] == [0, 1020, 10020, -1], "changed"
PY
