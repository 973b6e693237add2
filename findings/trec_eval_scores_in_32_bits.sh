#!/usr/bin/env bash
# pytrec_eval 0.5.11 (the package pytrec_eval-terrier): scores are compared in 32 bits, and equal ones ranked by document name.
#
# Guess: a run is ranked by the scores given, Python's floats of 64 bits; 1.000000001 comes before 1.
# Seen: what is equal in 32 bits is a tie, and ties are put in falling order of the names, whatever the order of the dict. A
# Unix time has 128 s to a step there: "newest first", the plain baseline of a catalogue, is ranked by name within each two
# minutes, and a bulk import wholly so. The metrics then depend on how the listings are called: here 1.00 or 0.06.
# ranx ranks the same numbers as they are. What to do: hand over ranks, as `-rank`, instead of scores.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pytrec_eval-terrier==0.5.11' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import pytrec_eval

IMPORTED_AT = 1_764_000_000  # seconds since 1970
N_LISTINGS = 16


def reciprocal_rank(relevant, run):
    evaluator = pytrec_eval.RelevanceEvaluator({"query": {relevant: 1}}, {"recip_rank"})
    return evaluator.evaluate({"query": run})["query"]["recip_rank"]


seconds = range(N_LISTINGS)  # one listing a second, the last one is the newest and the relevant one
rising = {f"listing-{second:02d}": float(IMPORTED_AT + second) for second in seconds}
falling = {f"listing-{99 - second:02d}": float(IMPORTED_AT + second) for second in seconds}
seen = {}
for name, times in (("names rise with time", rising), ("names fall with time", falling)):
    newest_first = sorted(times, key=times.get, reverse=True)
    ranks = {listing: float(-rank) for rank, listing in enumerate(newest_first, start=1)}
    seen[name] = by_time, by_rank = reciprocal_rank(newest_first[0], times), reciprocal_rank(newest_first[0], ranks)
    print(f"{name}: reciprocal rank of the newest {by_time:.2f} by time, {by_rank:.2f} by -rank")
close = reciprocal_rank("a", {"a": 1.000000001, "b": 1.0})
print(f"a scored 1.000000001 and b 1.0: reciprocal rank of a {close:.2f}")
assert all(by_rank == 1 for _, by_rank in seen.values())
assert seen["names rise with time"][0] == 1 and seen["names fall with time"][0] == 1 / N_LISTINGS and close == 0.5, "changed"
PY
