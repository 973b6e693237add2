#!/usr/bin/env bash
# faiss-cpu 1.15.1: its RaBitQ index leaves out the random rotation that RaBitQ rests on.
#
# Expected: `RaBitQ` is the method of that name, of which the first step is a random rotation of all vectors, so that the
# sign of each coordinate says equally much; the order and scale of the coordinates that come in make no difference.
# Seen: the signs are taken of the coordinates as they are. Where a few of them carry most of the spread, as after a PCA,
# recall falls to less than half of what `RR768,RaBitQ` finds with a rotation of one's own in front, in as many bits. With
# coordinates of equal spread both do the same, which hides it in a trial on random vectors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import faiss
import numpy as np

generator = np.random.default_rng(0)
n, dimension = 5000, 768


def recalls(spread):
    vectors = generator.standard_normal((n, dimension)).astype(np.float32) * spread
    faiss.normalize_L2(vectors)
    queries = vectors[:50] + 0.02 * generator.standard_normal((50, dimension)).astype(np.float32)
    exact = faiss.knn(queries, vectors, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    recall = {}
    for spec in ("RaBitQ", f"RR{dimension},RaBitQ"):
        index = faiss.index_factory(dimension, spec, faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        found = index.search(queries, 10)[1]
        recall[spec] = float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact, found, strict=True)]))
    return recall


even = recalls(np.ones(dimension, np.float32))
uneven = recalls(np.where(np.arange(dimension) < 50, 5, 1).astype(np.float32))
for name, recall in (("even", even), ("50 of 768 five times as wide", uneven)):
    print(f"recall@10, {name}: " + ", ".join(f"{spec} {value:.2f}" for spec, value in recall.items()))
(plain, rotated), (plain_uneven, rotated_uneven) = even.values(), uneven.values()
assert abs(plain - rotated) < 0.1 and rotated_uneven > 2 * plain_uneven, "changed"
PY
