#!/usr/bin/env bash
# milvus-lite 3.2.2, pymilvus 3.0.2: a full upsert empties the fields of the schema and keeps the dynamic ones.
#
# Expected: `upsert` without `partial_update` puts the new row in place of the old one: what the new row does not name is
# gone, whether it was a field of the schema or a dynamic one. To keep the rest is what `partial_update=True` is for.
# Seen: the nullable fields of the schema become null, and every dynamic key of the old row stays, so that a listing that
# is no longer sold is still found by `sold == true`. `insert` of the same key replaces the row whole.
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
schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
schema.add_field("row", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
schema.add_field("title", DataType.VARCHAR, max_length=20, nullable=True)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="IP")
client.create_collection("listings", schema=schema, index_params=index)
old = {"vector": [1.0, 0.0], "title": "a chair", "sold": True, "colour": "red"}
client.insert("listings", [{"row": row, **old} for row in (1, 2, 3)])

new = {"vector": [0.0, 1.0], "colour": "blue"}
client.upsert("listings", [{"row": 1, **new}])
client.upsert("listings", [{"row": 2, **new}], partial_update=True)
client.insert("listings", [{"row": 3, **new}])
rows = {row.pop("row"): row for row in client.query("listings", filter="row > 0", output_fields=["*"])}
for row, how in ((1, "upsert"), (2, "upsert of a part"), (3, "insert again")):
    kept = {name: value for name, value in rows[row].items() if name != "vector"}
    print(f"{how:17s} {kept}")
sold = sorted(found["row"] for found in client.query("listings", filter="sold == true", output_fields=["row"]))
print(f"sold == true: rows {sold}")
assert rows[1]["title"] is None and rows[1].get("sold") is True and rows[1]["colour"] == "blue", "changed"
assert rows[2]["title"] == "a chair" and rows[3]["title"] is None and "sold" not in rows[3] and sold == [1, 2], "changed"
PY
venv/bin/python ask.py 2>/dev/null
