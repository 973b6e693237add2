#!/usr/bin/env bash
# ml_dtypes 0.5.4 with numpy 2.4.6: one NaN among bfloat16 scores, and sorting them no longer sorts.
#
# Guess: numpy sorts bfloat16 as it sorts float16: NaN last, all others in order; `nanargmax` and `nanmean` pass over NaN.
# Seen: a stable sort, as rankings need it, keeps apart what stands on either side of the NaN: of the ten best of 256 scores
# `argsort` finds half on average, and none if the NaN stands where it does most harm. The default sort fails seldom by
# one NaN, though its order is wrong nearly always. `nanargmax` answers with the NaN's own place, and `nanmean` with NaN.
# The package's page warns of rounding in sums, not of this. In float16 all of it is right.
# What to do: `astype(np.float32)` before sorting.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'ml_dtypes==0.5.4' 'numpy==2.4.6'
venv/bin/python -W ignore - <<'PY'
import ml_dtypes
import numpy as np

# each of them exact in both types, and no two the same
scores = np.random.default_rng(0).permutation(np.arange(-128, 128))


def ask(dtype, place):
    given = scores.astype(dtype)
    assert np.array_equal(given.astype(int), scores)
    given[place] = np.nan
    left = np.delete(scores, place)
    best = np.sort(np.delete(scores, place))[-10:].astype(float)
    among = [len(set(given[np.argsort(-given, kind=kind)[:10]].astype(float)) & set(best)) for kind in ("stable", None)]
    rows = np.sort(given).astype(float)
    in_order = bool((np.diff(rows[~np.isnan(rows)]) > 0).all())
    return *among, in_order, int(np.nanargmax(given)) == place, bool(np.isnan(np.nanmean(given)))


for dtype in (np.float16, ml_dtypes.bfloat16):
    stable, default, in_order, own_place, no_mean = np.array([ask(dtype, place) for place in range(len(scores))]).T
    print(
        f"{dtype.__name__:9s} the NaN at each of {len(scores)} places: of the ten best {stable.min()} to {stable.max()} are "
        f"found, {stable.mean():.2f} on average (default sort: {default.mean():.2f}); sorted {in_order.sum()} times; "
        f"nanargmax is the NaN {own_place.sum()} times, nanmean is NaN {no_mean.sum()} times"
    )
    if dtype is np.float16:
        assert stable.min() == default.min() == 10 and in_order.all() and not own_place.any() and not no_mean.any()
    else:
        assert stable.mean() < 7 and stable.min() < 2 and in_order.mean() < 0.3, "changed"
        assert own_place.all() and no_mean.all(), "changed"
PY
