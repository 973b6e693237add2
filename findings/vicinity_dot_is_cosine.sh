#!/usr/bin/env bash
# vicinity 0.4.6: the metric "dot" compares by cosine, and with usearch's "ip" all distances are 0.
#
# Guess: "dot", which the table of metrics names beside "cosine", ranks by the inner product, as Annoy's own "dot" does; and
# distances tell the nearer from the farther.
# Seen: "dot" is taken for another name of "cosine" by each backend: of the ten largest inner products a third is found. "ip" is
# to be had from usearch alone; it finds them, but its distance, 1 minus the product, is below 0 for most, and is cut to 0,
# so that `query_threshold` lets through whatever it is asked, and answers of two indexes cannot be merged.
# What to do: normalise, or ask usearch or Annoy themselves.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'vicinity==0.4.6' 'annoy==1.17.3' 'usearch==2.26.6' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import annoy
import numpy as np
import vicinity

rng = np.random.default_rng(0)
vectors = rng.standard_normal((1000, 16)).astype(np.float32) * rng.uniform(0.5, 2, (1000, 1)).astype(np.float32)
queries = vectors[:50]
largest = np.argsort(-queries @ vectors.T, axis=1)[:, :10]


def share(found):
    return float(np.mean([len(set(row) & set(best)) / 10 for row, best in zip(found, largest.tolist(), strict=True)]))


def ask(backend, metric):
    index = vicinity.Vicinity.from_vectors_and_items(vectors, list(range(1000)), backend_type=backend, metric=metric)
    answers = index.query(queries, k=10)
    distances = np.array([[distance for _, distance in answer] for answer in answers])
    found = share([[item for item, _ in answer] for answer in answers])
    print(f"{backend.value:8s}{metric:7s} {found:4.0%} of the ten largest, distances {distances[0, :4].round(3).tolist()}")
    return found, distances


own = annoy.AnnoyIndex(16, "dot")
own.set_seed(1)
for item, vector in enumerate(vectors):
    own.add_item(item, vector)
own.build(100)
by_annoy = share([own.get_nns_by_vector(query, 10) for query in queries])
print(f"Annoy's own dot {by_annoy:4.0%} of the ten largest")
assert by_annoy > 0.9
for backend in (vicinity.Backend.BASIC, vicinity.Backend.ANNOY):
    dot, cosine = ask(backend, "dot"), ask(backend, "cosine")
    assert dot[0] < 0.5 and np.allclose(dot[1], cosine[1], atol=1e-2), "changed"
found, distances = ask(vicinity.Backend.USEARCH, "ip")
assert found > 0.9 and (distances == 0).mean() > 0.9, "changed"
PY
