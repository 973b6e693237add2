#!/usr/bin/env bash
# faiss-cpu 1.15.1: a selector among the parameters of a refined or transformed index is taken and not used.
#
# Expected: `sel` of `IndexRefineSearchParameters` and of `SearchParametersPreTransform` limits the search to its ids, as
# the same argument of `SearchParameters` and `SearchParametersIVF` does; or is refused, as it is by kinds that cannot.
# Seen: both take the argument (they inherit it) and answer as if it were not there, with ids that it leaves out and no
# error. It has to be in the parameters of the inner index (`base_index_params`, `index_params`). A plain
# `SearchParameters(sel=...)` is handed on by the transformed index and refused by the refined one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'faiss-cpu==1.15.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import faiss
import numpy as np

vectors = np.random.default_rng(0).standard_normal((5000, 32)).astype(np.float32)
refined = faiss.IndexRefineFlat(faiss.index_factory(32, "SQ4"))
transformed = faiss.index_factory(32, "PCA16,Flat")
for index in (refined, transformed):
    index.train(vectors)
    index.add(vectors)
selector = faiss.IDSelectorRange(10, 100)
inner = faiss.SearchParameters(sel=selector)


def allowed(index, parameters):
    found = index.search(vectors[:1], 10, params=parameters)[1]
    return int(((found >= 10) & (found < 100)).sum())


outside = {
    "refined": allowed(refined, faiss.IndexRefineSearchParameters(k_factor=4, sel=selector)),
    "transformed": allowed(transformed, faiss.SearchParametersPreTransform(sel=selector)),
}
inside = {
    "refined": allowed(refined, faiss.IndexRefineSearchParameters(k_factor=4, base_index_params=inner)),
    "transformed": allowed(transformed, faiss.SearchParametersPreTransform(index_params=inner)),
}
plain = allowed(transformed, inner)
try:
    allowed(refined, inner)
    refused = False
except RuntimeError:
    refused = True
print(f"allowed ids among 10 answers, selector in its own parameters: {outside}; in the inner index's: {inside}")
print(f"plain parameters: transformed {plain}, refined {'refused' if refused else 'answered'}")
assert max(outside.values()) < 5 and set(inside.values()) == {10} and plain == 10 and refused, "changed"
PY
