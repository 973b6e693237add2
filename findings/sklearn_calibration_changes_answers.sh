#!/usr/bin/env bash
# scikit-learn 1.9.1: calibrating a classifier of several classes changes which class it answers.
#
# Expected: `CalibratedClassifierCV` on a fitted classifier changes how sure it is, not what it says: a sigmoid and an
# isotonic curve both rise, so that the highest score stays the highest.
# Seen: each class gets a curve of its own and the results are scaled to 1, which reorders them: 5 to 20 % of the answers
# are others than before, with no gain in accuracy. Isotonic curves also say 0 of the class that is right, now and then,
# which makes the log loss of that photo as large as can be. Only `method="temperature"` keeps every answer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'scikit-learn==1.9.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

samples, labels = make_classification(
    6000, 30, n_informative=12, n_classes=10, n_clusters_per_class=1, flip_y=0.1, random_state=0,
    weights=np.arange(1, 11) / 55,
)  # fmt: skip
train, calibrate, test = np.split(np.arange(6000), 3)
fitted = LogisticRegression(max_iter=2000).fit(samples[train], labels[train])
before = fitted.predict(samples[test])
print(f"not calibrated: accuracy {(before == labels[test]).mean():.3f}")
changed, impossible = {}, {}
for method in ("sigmoid", "isotonic", "temperature"):
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method=method)
    calibrated.fit(samples[calibrate], labels[calibrate])
    chances = calibrated.predict_proba(samples[test])
    after = calibrated.predict(samples[test])
    changed[method] = float((after != before).mean())
    impossible[method] = int((chances[np.arange(len(test)), labels[test]] == 0).sum())
    print(
        f"{method}: {changed[method]:.1%} of the answers changed, accuracy {(after == labels[test]).mean():.3f}, "
        f"the right class has chance 0 for {impossible[method]} of {len(test)}"
    )
assert min(changed["sigmoid"], changed["isotonic"]) > 0.05 and changed["temperature"] == 0, "changed"
assert impossible["isotonic"] > 0 == impossible["sigmoid"] == impossible["temperature"], "changed"
PY
