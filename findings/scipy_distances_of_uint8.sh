#!/usr/bin/env bash
# SciPy 1.17.1: between two vectors of whole numbers without sign `cosine` is 0 and `euclidean` several times too large.
#
# Guess: a distance between two uint8 vectors, as pixels, histograms and quantised embeddings are, is computed in floats:
# `cdist` of the same two is, and so are `sqeuclidean` and `correlation`. The documentation names no type that would not do.
# Seen: `euclidean`, `cityblock`, `chebyshev` and `minkowski` subtract before they widen, so that 3 - 5 is 254; `cosine` adds
# its products up in 8 bits and says 0.0 for two vectors far apart, which reads as "the same photo". So it does for two bool
# vectors. `cosine` alone may warn, of an overflow in a multiplication. With uint16 and uint32 the errors are larger.
# What to do: convert to float first, or call `cdist` with one row each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'scipy==1.17.1' 'numpy==2.4.6'
venv/bin/python -W ignore - <<'PY'
import numpy as np
from scipy.spatial import distance

levels = np.random.default_rng(0).integers(0, 120, (2, 64))
names = ("euclidean", "cityblock", "chebyshev", "minkowski", "cosine", "sqeuclidean", "correlation", "canberra", "braycurtis")
wrong, by_cdist = set(), set()
for dtype in (np.uint8, np.uint16, np.uint32):
    one, other = levels.astype(dtype)
    for name in names:
        right = float(getattr(distance, name)(one.astype(float), other.astype(float)))
        seen = float(getattr(distance, name)(one, other))
        if not np.isclose(seen, right):
            print(f"{dtype.__name__:7s}{name:10s} {seen:.6g} instead of {right:.6g}")
            wrong.add((dtype, name))
        if not np.isclose(distance.cdist(one[None], other[None], name)[0, 0], right):
            by_cdist.add((dtype, name))
bits = levels > 60
of_bits = float(distance.cosine(*bits)), float(distance.cosine(*bits.astype(float)))
print(f"bool   cosine     {of_bits[0]:.6g} instead of {of_bits[1]:.6g}")
print("cdist is right with each" if not by_cdist else by_cdist)
assert not by_cdist
assert wrong == {(dtype, name) for dtype in (np.uint8, np.uint16, np.uint32) for name in names[:5]}, "changed"
assert of_bits[0] == 0 and of_bits[1] > 0.3, "changed"
assert distance.cosine(*levels.astype(np.uint8)) == 0, "changed"
PY
