#!/usr/bin/env bash
# milvus-lite 3.2.2, pymilvus 3.0.2: of a JSON field, a filter and its `not` together leave out the rows without that key.
#
# Expected: `price >= 50` and `not (price >= 50)` share all rows between them, as `must` and `must_not` do in Qdrant and
# Elasticsearch; a listing without a price is not one of 50 or more. And a set of values can be asked for with `in`, as of
# any other field.
# Seen: a row whose JSON has no such key meets neither filter, nor does one whose JSON is null: `not` means "there, and
# otherwise", as NULL does in SQL. The complement has to be written as `not exists key or not (key >= 50)`. `in` on a JSON
# path is refused ("must be a field reference"); the same values joined by `or` are answered.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pymilvus==3.0.2' 'milvus-lite==3.2.2'
cat > ask.py <<'PY'
import logging

from pymilvus import DataType, MilvusClient, MilvusException

logging.disable()
client = MilvusClient("listings.db")
schema = client.create_schema(auto_id=False)
schema.add_field("row", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
schema.add_field("listing", DataType.JSON, nullable=True)
client.create_collection("listings", schema=schema)
listings = [{"price": 20, "colour": "red"}, {"price": 80, "colour": "blue"}, {"colour": "red"}, {}, None]
client.insert(
    "listings", [{"row": n, "vector": [1.0, float(n)], "listing": listing} for n, listing in enumerate(listings)]
)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_index("listings", index)
client.load_collection("listings")


def rows(expression):
    return sorted(found["row"] for found in client.query("listings", filter=expression, output_fields=["row"]))


dear, others = rows('listing["price"] >= 50'), rows('not (listing["price"] >= 50)')
complement = rows('not exists listing["price"] or not (listing["price"] >= 50)')
print(f">= 50: rows {dear}; not (>= 50): rows {others}; neither: {sorted({*range(5)} - {*dear, *others})}")
print(f"not there, or not >= 50: rows {complement}")
assert (dear, others, complement) == ([1], [0], [0, 2, 3, 4])
try:
    rows('listing["colour"] in ["red", "green"]')
except MilvusException as refused:
    print(f"in: {refused.message.splitlines()[0]}")
    assert "must be a field reference" in refused.message
else:
    raise SystemExit("`in` on a JSON path is answered now")
joined = rows('listing["colour"] == "red" or listing["colour"] == "green"')
print(f"joined by or: rows {joined}")
assert joined == [0, 2]
PY
venv/bin/python ask.py 2>/dev/null
