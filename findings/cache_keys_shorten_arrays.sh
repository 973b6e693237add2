#!/usr/bin/env bash
# Flask-Caching 2.5.1, dogpile.cache 1.5.0, aiocache 0.12.3, cashews 7.6.0: a function cached by its arguments answers for one
# vector of 2048 numbers with what it gave for another.
#
# Guess: an argument that a cache cannot tell apart is refused, as functools.lru_cache refuses a numpy array (it has no hash),
# or is told apart by all of its bytes. "Takes its arguments into account", says the one; "the arguments passed" are in the
# key, says another.
# Seen: all four make the key from the argument's text, and numpy writes an array of more than 1000 numbers as its first three
# and last three. Two vectors, or photos with the same corners, have one key. joblib and diskcache, which look at the bytes,
# give the right answer each time.
# What to do: cache by a digest of the bytes that one computes oneself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'flask==3.1.3' 'flask-caching==2.5.1' 'dogpile.cache==1.5.0' \
    'aiocache==0.12.3' 'cashews==7.6.0' 'joblib==1.6.0' 'diskcache==5.6.3' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import asyncio

import aiocache
import cashews
import diskcache
import dogpile.cache
import flask
import flask_caching
import joblib
import numpy as np

first, second = np.random.default_rng(0).standard_normal((2, 2048)).astype(np.float32)
second[:3], second[-3:] = first[:3], first[-3:]
black, white = np.zeros((2, 64, 64, 3), np.uint8)
white[3:-3, 3:-3] = 255  # a white photo with a black margin


def total(array):
    return float(array.sum())


async def total_later(array):
    return float(array.sum())


app = flask.Flask("shop")
flask_cache = flask_caching.Cache(app, config={"CACHE_TYPE": "SimpleCache"})
cashews.cache.setup("mem://")
in_flask = flask_cache.memoize()(total)
in_aiocache, in_cashews = aiocache.cached()(total_later), cashews.cache(ttl="1h")(total_later)


def of_flask(array):
    with app.app_context():
        return in_flask(array)


async def of_both(cached, pair):
    return [await cached(array) for array in pair]


caches = {
    "Flask-Caching": lambda pair: [of_flask(array) for array in pair],
    "dogpile.cache": lambda pair: list(map(in_dogpile, pair)),
    "aiocache": lambda pair: asyncio.run(of_both(in_aiocache, pair)),
    "cashews": lambda pair: asyncio.run(of_both(in_cashews, pair)),
    "joblib": lambda pair: list(map(in_joblib, pair)),
    "diskcache": lambda pair: list(map(in_diskcache, pair)),
}
in_dogpile = dogpile.cache.make_region().configure("dogpile.cache.memory").cache_on_arguments()(total)
in_joblib = joblib.Memory("joblib", verbose=0).cache(total)
in_diskcache = diskcache.Cache("diskcache").memoize()(total)
wrong = set()
for name, ask in caches.items():
    for pair in ((first, second), (black, white)):
        answers, right = ask(pair), [total(array) for array in pair]
        print(f"{name:14s}{pair[0].shape!s:13s} {answers}{'' if answers == right else f'   instead of {right}'}")
        assert answers[0] == right[0] and answers[1] in right
        if answers != right:
            wrong.add((name, pair[0].ndim))
expected = {(name, ndim) for name in ("Flask-Caching", "dogpile.cache", "aiocache", "cashews") for ndim in (1, 3)}
assert wrong == expected, "changed"
PY
