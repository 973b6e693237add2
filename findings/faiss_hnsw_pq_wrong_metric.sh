#!/usr/bin/env bash
# faiss-cpu 1.15.1: `index_factory(d, "HNSW16,PQ8", METRIC_INNER_PRODUCT)` makes an index that compares by Euclidean distance.
#
# Expected: the metric that is passed is the metric of the index, or the factory raises, as it does for `LSH`.
# Seen: the metric is dropped; `PQ8`, `HNSW16` and `HNSW16,SQ8` keep it. The scores come smallest first, as distances do.
# Unit vectors are ranked alike by both; where lengths differ, not one of the ten nearest by inner product is among the
# answers, and a threshold on the scores keeps the worst. `index.metric_type` tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import faiss
import numpy as np

rng = np.random.default_rng(0)
lengths = rng.uniform(0.3, 3, (10_000, 1))
vectors = (rng.standard_normal((10_000, 32)) * lengths).astype(np.float32)
queries = rng.standard_normal((100, 32)).astype(np.float32)
exact = {
    metric: faiss.knn(queries, vectors, 10, metric=metric)[1] for metric in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT)
}
names = {faiss.METRIC_L2: "Euclidean distance", faiss.METRIC_INNER_PRODUCT: "inner product"}


def shared(found, metric):
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact[metric])]))


def search(spec):
    index = faiss.index_factory(32, spec, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    scores, found = index.search(queries, 10)
    by_product, by_distance = (shared(found, metric) for metric in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2))
    print(f"{spec:11s} metric: {names[index.metric_type]}; first scores {[round(float(score), 1) for score in scores[0, :3]]};")
    print(f"{'':11s} of the ten nearest by inner product {by_product:.0%}, by Euclidean distance {by_distance:.0%}")
    return index.metric_type, by_product, by_distance


for spec in ("PQ8", "HNSW16", "HNSW16,SQ8"):
    metric, by_product, by_distance = search(spec)
    assert metric == faiss.METRIC_INNER_PRODUCT and by_product > 0.4 and by_distance < 0.1
metric, by_product, by_distance = search("HNSW16,PQ8")
assert metric == faiss.METRIC_L2 and by_product < 0.05 and by_distance > 0.15, "changed"
PY
