#!/usr/bin/env bash
# faiss-cpu 1.15.1: by inner product, a PCA that keeps all dimensions gives other neighbours than no PCA.
#
# Expected: with as many axes as the vectors have numbers a PCA is a rotation, which keeps all inner products, so that
# `PCA64,Flat` of 64 numbers answers as `Flat` does, by either metric.
# Seen: by L2 it does. By inner product half of the ten nearest are others, and the scores are not cosines any more:
# the PCA also subtracts the mean. Differences of vectors are free of it, products are not. `RR64`, which only rotates,
# keeps the answers. A search service that compares unit vectors has to use L2 after a PCA, where the order is that of
# the cosine; by inner product it loses answers, which looks like the price of having fewer axes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
OMP_NUM_THREADS=1 venv/bin/python - <<'PY'
import faiss
import numpy as np

rng = np.random.default_rng(0)
centres = rng.standard_normal((200, 64))
# No number is negative, as in what a network's last ReLU and average pooling leave.
vectors = np.abs(centres[rng.integers(0, 200, 20_000)] + 0.5 * rng.standard_normal((20_000, 64))).astype(np.float32)
faiss.normalize_L2(vectors)
queries, stored = vectors[:500], vectors[500:]


def answers(spec, metric):
    index = faiss.index_factory(64, spec, metric)
    index.train(stored)
    index.add(stored)
    return index.search(queries, 10)


def kept(spec, metric):
    pairs = zip(answers("Flat", metric)[1], answers(spec, metric)[1])
    return float(np.mean([len(np.intersect1d(plain, other)) / 10 for plain, other in pairs]))


metrics = {"L2": faiss.METRIC_L2, "inner product": faiss.METRIC_INNER_PRODUCT}
shares = {(name, spec): kept(spec, metrics[name]) for name in metrics for spec in ("RR64,Flat", "PCA64,Flat")}
for (name, spec), share in shares.items():
    print(f"{name:13s} {spec:10s} {share:.0%} of the ten nearest kept")
best = {spec: float(answers(spec, faiss.METRIC_INNER_PRODUCT)[0][:, 0].mean()) for spec in ("Flat", "PCA64,Flat")}
print(f"mean inner product of the first answer: {best['Flat']:.2f}, with PCA {best['PCA64,Flat']:.2f}")
assert shares.pop(("inner product", "PCA64,Flat")) < 0.8 < 0.99 < min(shares.values()), "changed"
assert best["Flat"] > best["PCA64,Flat"] + 0.2, "changed"
PY
