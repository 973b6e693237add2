#!/usr/bin/env bash
# limits 5.8.0 (beneath Flask-Limiter): what a fixed window refuses for its cost is deducted all the same.
#
# Expected: `hit` says "True if cost could be deducted from the rate limit without exceeding it": a call of 20 within 10 an
# hour is refused, nothing is deducted, and calls of 1 pass after it, by each of the strategies.
# Seen: so it is with the moving window and the sliding counter. The fixed window, Flask-Limiter's default, adds the 20 first
# and compares afterwards, so that all calls are refused until the window ends; `test`, asked before each, has told the
# truth. Where a batch costs as many as it has photos, a client whose one batch was too large cannot search at all for the
# rest of the window.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'limits==5.8.0'
venv/bin/python - <<'PY'
from limits import RateLimitItemPerHour
from limits.storage import MemoryStorage
from limits.strategies import STRATEGIES

TEN = RateLimitItemPerHour(10)


def after_refusal(name):
    """Whether a call of 1 passes after a refused one of 20, and what is left then."""
    limiter = STRATEGIES[name](MemoryStorage())
    assert not limiter.test(TEN, "client", cost=20)
    assert limiter.test(TEN, "client", cost=1)
    assert not limiter.hit(TEN, "client", cost=20)
    return limiter.hit(TEN, "client", cost=1), limiter.get_window_stats(TEN, "client").remaining


seen = {name: after_refusal(name) for name in STRATEGIES}
for name, (passed, left) in seen.items():
    print(f"{name:23s} a call of 20 is refused, then one of 1 {'passes' if passed else 'is refused'}: {left} of 10 left")
assert seen.pop("fixed-window") == (False, 0), "changed"
assert set(seen) == {"moving-window", "sliding-window-counter"} and set(seen.values()) == {(True, 9)}, "changed"
PY
