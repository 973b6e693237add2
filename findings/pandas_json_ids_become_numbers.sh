#!/usr/bin/env bash
# pandas 3.1.1: `read_json` turns JSON strings that look like numbers into numbers: ids lose zeros and digits.
#
# Expected: JSON tells "0012" from 12, so nothing has to be guessed as from a CSV: a string is a string afterwards.
# Seen: a column whose strings all look like numbers is converted: "0012" is 12, and ids of 20 digits become floats, where
# two different ones are the same. A column whose name ends in `_at` becomes times. With one more row, of the id "A14", the
# ids stay as they are; with `dtype=False` all do. A catalogue read without it loses the join of photos to listings,
# or joins photos to others' listings, and whether it does changes with its rows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pandas==3.1.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import io
import json

import pandas as pd

listings = [
    {"id": "0012", "photo": "12345678901234567890", "name": "chair", "sold_at": "1700000000"},
    {"id": "0013", "photo": "12345678901234567891", "name": "lamp", "sold_at": "1700000001"},
]


def read(rows, **options):
    lines = "\n".join(json.dumps(row) for row in rows)
    return pd.read_json(io.StringIO(lines), lines=True, **options)


plain = read(listings)
with_letter = read([*listings, {**listings[0], "id": "A14"}])
for name in plain:
    print(f"{name:8s} {[row[name] for row in listings]} -> {plain[name].tolist()} ({plain[name].dtype})")
print(f"id, with a third listing \"A14\": {with_letter.id.tolist()}")
print(f"different photos: {plain.photo.nunique()} of {len(listings)}")
assert plain.id.tolist() == [12, 13] and plain.photo.nunique() == 1 and plain.photo.dtype == float, "changed"
assert plain.sold_at.dtype.kind == "M" and with_letter.id.tolist() == ["0012", "0013", "A14"], "changed"
assert read(listings, dtype=False).to_dict("records") == listings, "changed"
PY
