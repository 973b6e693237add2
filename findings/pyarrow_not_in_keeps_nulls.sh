#!/usr/bin/env bash
# pyarrow 26.0.1: the filter `("price", "not in", [5])` keeps rows without a price; `("price", "!=", 5)` leaves them out.
#
# Expected: with one value in the list the two mean the same, whatever becomes of nulls. In SQL both leave them out.
# Seen: `!=` of a null is null, which is filtered out; `not in` is the opposite of `is_in`, which says False for a null.
# The same holds for expressions (`~field.isin([5])`, `~(field == 5)`) and for strings. A filter over a catalogue that
# turns one excluded value into `!=` and several into `not in` hides or shows listings of unknown price by how many
# values were named.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pyarrow==26.0.1'
venv/bin/python - <<'PY'
import sqlite3

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

listings = {"row": [0, 1, 2, 3], "price": [5, 6, None, 7], "colour": ["red", None, "blue", "red"]}
pq.write_table(pa.table(listings), "listings.parquet")
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE listings (number, price, colour)")
database.executemany("INSERT INTO listings VALUES (?, ?, ?)", zip(*listings.values()))


def rows(filters):
    return pq.read_table("listings.parquet", filters=filters)["row"].to_pylist()


def in_sql(condition):
    return [row for (row,) in database.execute(f"SELECT number FROM listings WHERE {condition} ORDER BY number")]


price = ds.field("price")
seen = {
    "price != 5": rows([("price", "!=", 5)]),
    "price not in [5]": rows([("price", "not in", [5])]),
    "~(field == 5)": rows(~(price == 5)),
    "~field.isin([5])": rows(~price.isin([5])),
    "colour != red": rows([("colour", "!=", "red")]),
    "colour not in [red]": rows([("colour", "not in", ["red"])]),
    "SQL: price != 5": in_sql("price != 5"),
    "SQL: price NOT IN (5)": in_sql("price NOT IN (5)"),
}
for name, found in seen.items():
    print(f"{name:22s} rows {found}")
assert list(seen.values()) == [[1, 3], [1, 2, 3], [1, 3], [1, 2, 3], [2], [1, 2], [1, 3], [1, 3]], "changed"
PY
