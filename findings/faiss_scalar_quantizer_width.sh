#!/usr/bin/env bash
# faiss-cpu 1.15.1, x86-64: a scalar quantizer searches vectors of 255 numbers more than ten times as slowly as vectors of 256.
#
# Guess: the time of a comparison grows with the number of dimensions, perhaps in steps of a SIMD register, whose last part is
# filled up or done one by one: 255 dimensions take about as long as 256.
# Seen: unless the number of dimensions is a multiple of 8, no part of a comparison uses SIMD. On an AMD EPYC (AVX-512) a code of
# 256 dimensions takes 16 ns, of 264 21 ns, of 255 210 ns, with 8 bits; the same with 4 and 6 bits and with float16. Flat
# indexes of float32 have no such step.
# What to do: reduce to a multiple of 16 dimensions, or append zeros, which change neither inner products nor distances.
set -euo pipefail
case "$(uname -m)" in x86_64 | amd64) ;; *) echo "only measured on x86-64"; exit 0 ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
"$work/venv/bin/python" - <<'PYTHON'
import time

import faiss
import numpy as np

N, N_QUERIES, TURNS = 20_000, 4, 7
faiss.omp_set_num_threads(1)
numbers = np.random.default_rng(0).normal(size=(N, 264)).astype(np.float32)


def ns_a_code(made, width, appended=0):
    """The fastest of some searches, in processor time."""
    vectors = np.pad(numbers[:, :width], ((0, 0), (0, appended)))
    index = made(width + appended)
    index.train(vectors)
    index.add(vectors)
    took = []
    for _ in range(TURNS):
        began = time.process_time()
        index.search(vectors[:N_QUERIES], 10)
        took.append(time.process_time() - began)
    return min(took) / N_QUERIES / N * 1e9


def quantizer(kind):
    return lambda width: faiss.IndexScalarQuantizer(width, getattr(faiss.ScalarQuantizer, kind), faiss.METRIC_INNER_PRODUCT)


print(f"faiss {faiss.__version__}, {faiss.get_compile_options().strip()}")
for kind in ("QT_8bit", "QT_6bit", "QT_4bit", "QT_fp16"):
    at = {width: ns_a_code(quantizer(kind), width) for width in (248, 255, 256, 264)}
    filled = ns_a_code(quantizer(kind), 255, appended=1)
    print(kind, ", ".join(f"{width}: {ns:.1f} ns" for width, ns in at.items()), f"; 255 and a zero: {filled:.1f} ns")
    assert at[255] > 3 * max(at[248], at[256], at[264])
    assert at[255] > 3 * filled
flat = {width: ns_a_code(faiss.IndexFlatIP, width) for width in (255, 256)}
print("flat", ", ".join(f"{width}: {ns:.1f} ns" for width, ns in flat.items()))
assert flat[255] < 2 * flat[256]
PYTHON
