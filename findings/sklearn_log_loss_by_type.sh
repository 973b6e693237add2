#!/usr/bin/env bash
# scikit-learn 1.9.1: the log loss of one and the same answers is lower if they are in float32.
#
# Expected: probabilities of exactly 0 and 1 are the same numbers in float32 and float64, and so is their loss: infinite,
# or bounded by some constant.
# Seen: it is bounded by the smallest step of the array's own type. One wrong answer among a hundred that are sure costs
# 0.36 in float64, 0.16 in float32 and 0.07 in float16: a network that answers in a shorter type looks two to five
# times better than the same one converted first, and figures of two libraries cannot be compared.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'scikit-learn==1.9.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import numpy as np
from sklearn.metrics import log_loss

labels = np.arange(100) % 2
sure = np.eye(2)[labels]
sure[0] = sure[0][::-1]  # and wrong
losses = {kind.__name__: float(log_loss(labels, sure.astype(kind))) for kind in (np.float64, np.float32, np.float16)}
for kind, loss in losses.items():
    print(f"{kind}: {loss:.3f}, the step of that type {np.finfo(kind).eps:.1e}, -log of it {-np.log(np.finfo(kind).eps):.1f}")
assert losses["float64"] > 2 * losses["float32"] > 4 * losses["float16"] > 0, "changed"
assert np.allclose(list(losses.values()), [-np.log(np.finfo(kind).eps) / 100 for kind in losses], rtol=0.02), "changed"
PY
