#!/usr/bin/env bash
# sqlite-vec 0.1.9: `k = 5` gives ten rows, five or two, by which column the filter next to it is on.
#
# Guess: where at least five rows pass the filter, a search with `k = 5` gives the five nearest of them, nearest first.
# Seen: a filter on a metadata column does that. Two values of a partition key (`IN`, or `=` with OR) give five rows of each,
# one partition after the other, so that the sixth may be nearer than the first. A filter on the rowid, or on another table
# joined by it, is only held against the five nearest of all, and leaves two of them, or none. `rowid IN (...)` alone is
# seen to first. None of it raises.
# What to do: `ORDER BY distance` and cut to k oneself; keep what is filtered on in a metadata column.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
# pysqlite3 as many a Python is built without loading extensions
venv/bin/pip install -q --disable-pip-version-check 'sqlite-vec==0.1.9' 'pysqlite3-binary==0.5.4.post2' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import numpy as np
import pysqlite3
import sqlite_vec

vectors = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
shop = pysqlite3.connect(":memory:")
shop.enable_load_extension(True)
sqlite_vec.load(shop)
shop.execute("CREATE VIRTUAL TABLE photo USING vec0(embedding float[32], category integer partition key, price integer)")
shop.execute("CREATE TABLE item (id integer PRIMARY KEY, sold integer)")
for number, vector in enumerate(vectors):
    row = (number, vector.tobytes(), number % 4, number)
    shop.execute("INSERT INTO photo(rowid, embedding, category, price) VALUES (?, ?, ?, ?)", row)
    shop.execute("INSERT INTO item VALUES (?, ?)", (number, number % 2))
distances = np.linalg.norm(vectors - vectors[6], axis=1)


def rows_of(condition, passes):
    table = "photo JOIN item ON item.id = photo.rowid" if "sold" in condition else "photo"
    question = f"SELECT photo.rowid, distance FROM {table} WHERE embedding MATCH ? AND k = 5 AND {condition}"
    rows = shop.execute(question, (vectors[6].tobytes(),)).fetchall()
    nearest = [number for number in np.argsort(distances).tolist() if passes(number)][:5]
    ordered = bool((np.diff([distance for _, distance in rows]) >= 0).all())
    print(f"{condition:33s} {len(rows):2d} rows, {'nearest first' if ordered else 'in no order'}: {[row for row, _ in rows]}")
    return len(rows), [row for row, _ in rows] == nearest, ordered


cases = {
    "price > 2000": lambda number: number > 2000,
    "rowid > 2000": lambda number: number > 2000,
    "sold = 1": lambda number: number % 2 == 1,
    "category = 1": lambda number: number % 4 == 1,
    "category IN (1, 2)": lambda number: number % 4 in (1, 2),
    "(category = 1 OR category = 2)": lambda number: number % 4 in (1, 2),
    "category > 0": lambda number: number % 4 > 0,
}
seen = {condition: rows_of(condition, passes) for condition, passes in cases.items()}
assert all(seen[condition] == (5, True, True) for condition in ("price > 2000", "category = 1", "category > 0"))
assert all(seen[condition][0] < 5 for condition in ("rowid > 2000", "sold = 1")), "changed"
for condition in ("category IN (1, 2)", "(category = 1 OR category = 2)"):
    assert seen[condition] == (10, False, False), "changed"
PY
