#!/usr/bin/env bash
# hnswlib 0.8.0: the exact index, `BFIndex("cosine", ...)`, gives distances that depend on how long the query is.
#
# Guess: the brute-force index answers with the same cosine distances as the HNSW index of the same space, between 0 and 2.
# Seen: it normalises the stored vectors and not the query, and so answers 1 minus cosine times the query's length: far below
# 0 for a long query, and near 1 for each vector for a short one. The order is right, so that a comparison of ids, which is
# what one takes an exact index for, shows nothing; a threshold on the distance lets through all or nothing.
# What to do: normalise the queries.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'hnswlib==0.8.0' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import hnswlib
import numpy as np

vectors = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
exact, graph = hnswlib.BFIndex("cosine", 32), hnswlib.Index("cosine", 32)
exact.init_index(500)
graph.init_index(500, ef_construction=200)
for index in (exact, graph):
    index.add_items(vectors, np.arange(500))
graph.set_ef(500)
alike = {}
for length in (0.1, 1, 10):
    query = unit[:50] * np.float32(length)
    labels, distances = exact.knn_query(query, 3)
    of_graph, right = graph.knn_query(query, 3)
    print(f"query of length {length:<4g} BFIndex {distances[0].round(3).tolist()}, Index {right[0].round(3).tolist()}")
    assert np.array_equal(labels, of_graph)
    assert np.allclose(right[:, 0], 0, atol=1e-5)
    assert np.allclose(distances, 1 - length * (1 - right), atol=1e-4), "changed"
    alike[length] = bool(np.allclose(distances, right, atol=1e-4))
assert alike == {0.1: False, 1: True, 10: False}, "changed"
PY
