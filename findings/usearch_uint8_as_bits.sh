#!/usr/bin/env bash
# usearch 2.26.6: vectors of numpy's uint8 are taken for packed bits, even by an index of dtype "u8": it keeps the first eighth.
#
# Guess: an index whose numbers are stored as "u8" takes uint8 vectors as they are; an array that it takes in another sense has
# eight times too many columns for its number of dimensions, and is refused.
# Seen: `add` reads the first ndim/8 bytes of each row as ndim bits and passes over the rest; `get` gives zeros and ones, two
# photos that differ only further on are one, at distance 0, and `search` says so without a warning. `search(rows, queries,
# exact=True)` without an index answers by squared Euclidean distance with NaN for every row. An index of "i8" or "f32" does the
# same with uint8 rows.
# What to do: say `dtype="u8"` to `add` and `search` too, each time, or convert to float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'usearch==2.26.6' 'numpy==2.4.6'
venv/bin/python -W error - <<'PY'
import numpy as np
from usearch.index import Index, MetricKind, search

rows = np.random.default_rng(0).integers(0, 256, (500, 64), dtype=np.uint8)
rows[1, :8] = rows[0, :8]  # another vector that begins as the first does
exact = ((rows[:, None].astype(int) - rows[None, :20]) ** 2).sum(-1)


def ask(rows_are, **dtype):
    index = Index(ndim=64, metric="l2sq", dtype="u8")
    index.add(np.arange(500), rows, **dtype)
    found = index.search(rows[:20], 500, exact=True, **dtype)
    right = np.allclose(found.distances, np.sort(exact, axis=0).T)
    apart = dict(zip(found.keys[0].tolist(), found.distances[0].tolist(), strict=True))[1]
    print(f"{rows_are:17s} stored {index.get(3)[:8].tolist()} of {rows[3, :8].tolist()}; 0 and 1 are {apart:g} apart")
    return right, apart, index.get(3)


plain, named = ask("uint8 rows"), ask("with dtype='u8'", dtype="u8")
without_index = search(rows, rows[:20], 5, MetricKind.L2sq, exact=True).distances
print(f"exact search without an index: {without_index[0].tolist()}; the two are {exact[1, 0]} apart")
assert named[0] and np.array_equal(named[2], rows[3]) and exact[1, 0] > 100_000
assert not plain[0] and plain[1] == 0 and set(plain[2].tolist()) == {0, 1}, "changed"
assert np.isnan(without_index).all(), "changed"
PY
