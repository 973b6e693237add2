#!/usr/bin/env bash
# milvus-lite 3.2.2, pymilvus 3.0.2: of a FLOAT field `== 19.99` finds nothing and `in [19.99]` finds the row.
#
# Expected: a value that was stored is found by it, since field and number are compared in the field's type; and
# `x in [a]` means `x == a`.
# Seen: `==`, `!=`, `<` and `>=` compare the stored 32-bit number with a 64-bit one, so that 19.99 is not equal to itself
# but less, while `in` and `not in` compare in 32 bits. A price of 20.50, which 32 bits hold exactly, is found by both, as
# is every price in a DOUBLE field; a trial with round numbers shows nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pymilvus==3.0.2' 'milvus-lite==3.2.2'
cat > ask.py <<'PY'
import logging

from pymilvus import DataType, MilvusClient

logging.disable()
client = MilvusClient("listings.db")
schema = client.create_schema(auto_id=False)
schema.add_field("row", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
schema.add_field("price", DataType.FLOAT)
schema.add_field("wide", DataType.DOUBLE)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("listings", schema=schema, index_params=index)
prices = [19.99, 20.50]
client.insert(
    "listings", [{"row": n, "vector": [1.0, float(n)], "price": price, "wide": price} for n, price in enumerate(prices)]
)
found = {
    expression: sorted(row["row"] for row in client.query("listings", filter=expression, output_fields=["row"]))
    for field in ("price", "wide")
    for expression in (f"{field} == 19.99", f"{field} in [19.99]", f"{field} >= 19.99", f"{field} == 20.50")
}
print(f"prices by row: {prices}")
for expression, rows in found.items():
    print(f"{expression:18s} rows {rows}")
assert list(found.values()) == [[], [0], [1], [1], [0], [0], [0, 1], [1]], "changed"
PY
venv/bin/python ask.py 2>/dev/null
