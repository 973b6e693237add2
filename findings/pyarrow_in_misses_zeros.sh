#!/usr/bin/env bash
# pyarrow 26.0.1: of a Parquet file `in [0.0]` leaves out each row group that holds nothing but zeros; `== 0.0` finds it.
#
# Guess: statistics of a row group may only spare the reading of what cannot match, so that a file gives the rows which the
# table in memory gives; and `x in [a]` means `x == a`.
# Seen: the writer notes the range of a group of zeros as -0.0 to 0.0, as the format demands. The reader takes the two as
# equal, puts -0.0 in place of the column, and `in` compares bits: no row. Other numbers and groups that hold another
# number as well are right, so that a column sorted by value, or of a day without discounts, loses its zeros, and in
# pandas as in pyarrow. With -0.0 in the list as well all are found.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pyarrow==26.0.1' 'pandas==3.1.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

discounts = [0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.0, 0.2, 0.5]
table = pa.table({"row": range(9), "discount": discounts})
pq.write_table(table, "listings.parquet", row_group_size=3)
discount = ds.field("discount")


def rows(name, condition, filters):
    in_memory = table.filter(condition)["row"].to_pylist()
    of_file = ds.dataset("listings.parquet").to_table(filter=condition)["row"].to_pylist()
    assert pd.read_parquet("listings.parquet", filters=filters).row.tolist() == of_file
    print(f"{name:12s} of the table {in_memory}, of the file {of_file}")
    return in_memory, of_file


print(f"discounts by row, three to a row group: {discounts}")
assert rows("== 0.0", discount == 0.0, [("discount", "==", 0.0)]) == ([0, 1, 2, 6], [0, 1, 2, 6])
assert rows("in [0.1]", discount.isin([0.1]), [("discount", "in", [0.1])]) == ([3, 4, 5], [3, 4, 5])
both = rows("in [-0.0, 0]", discount.isin([-0.0, 0.0]), [("discount", "in", [-0.0, 0.0])])
assert both == ([0, 1, 2, 6], [0, 1, 2, 6])
assert rows("in [0.0]", discount.isin([0.0]), [("discount", "in", [0.0])]) == ([0, 1, 2, 6], [6]), "changed"
PY
