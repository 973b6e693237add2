#!/usr/bin/env bash
# prometheus-client 0.26.0: one NaN observed by a histogram is counted nowhere and makes its sum NaN for good.
#
# Expected: NaN is refused, or counted in the last bucket, `+Inf`, as everything is that fits no other, so that the count
# shows that it came.
# Seen: no bucket has it, and the count, which is that of the last bucket, does not know of it; the sum is NaN from then on,
# whatever else is observed. The mean that a dashboard makes of both is NaN until the process starts anew, and nothing
# shows why. The cosine of a vector of zeros, 0/0, is enough: a search service has to look at a score before it observes it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'prometheus-client==0.26.0'
venv/bin/python - <<'PY'
import math

from prometheus_client import CollectorRegistry, Histogram

registry = CollectorRegistry()
scores = Histogram("score", "Score of the first answer.", buckets=(0.5, 1.0), registry=registry)


def observe(*values):
    for value in values:
        scores.observe(value)
    beyond, count, total = (
        registry.get_sample_value(f"score_{name}", labels)
        for name, labels in (("bucket", {"le": "+Inf"}), ("count", {}), ("sum", {}))
    )
    print(f"after {list(values)}: bucket +Inf {beyond:.0f}, count {count:.0f}, sum {total}")
    return beyond, count, total


before = observe(0.4, 0.8)
with_nan = observe(math.nan)
after = observe(*[0.9] * 5)
assert before[:2] == with_nan[:2] == (2, 2) and math.isfinite(before[2]) and math.isnan(with_nan[2]), "changed"
assert after[:2] == (7, 7) and math.isnan(after[2]), "changed"
PY
