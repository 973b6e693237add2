#!/usr/bin/env bash
# safetensors 0.8.0, numpy: an array that is not contiguous is saved as it lies in memory, and comes back as another one.
#
# Guess: `safetensors.numpy.save` writes the matrix that it is given, whatever its memory order, as `numpy.save` does;
# or it refuses one that is not C-contiguous, as its counterpart for torch does.
# Seen: it does neither. A 2 x 3 matrix in Fortran order comes back with the same shape and type and its numbers in
# other places, and a slice with a step with the numbers between the steps, without an error or a warning.
# Transposed results, as of an SVD, are in Fortran order, and so is what element-wise operations make of them.
# What to do: `numpy.ascontiguousarray` before saving.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
transposed = np.ascontiguousarray(matrix.T).T  # the same matrix, in Fortran order
stepped = np.repeat(matrix, 2, axis=1)[:, ::2]  # the same matrix, in pieces
assert (transposed == matrix).all() and (stepped == matrix).all()
back = {name: load(save({name: array}))[name] for name, array in
        {"C order": matrix, "Fortran order": transposed, "in pieces": stepped}.items()}
for name, array in back.items():
    print(f"{name}: {array.tolist()}")
assert (back["C order"] == matrix).all()
assert back["in pieces"].tolist() == [[0.0, 0.0, 1.0], [1.0, 2.0, 2.0]]
assert back["Fortran order"].tolist() == [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
PYTHON
