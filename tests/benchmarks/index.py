"""Search at 10,000, 100,000 and a million photos of 2048 dimensions, beside exact search: `make bench`.

The vectors are made up (seeded), after 2,527 photos of a real marketplace embedded by EfficientNet-Lite0: a shared mean
that holds 0.29 of the squared length, and around it the variances of SPECTRUM along the principal axes. 2,500 kinds of
thing are drawn from that; a photo is a point between its kind and one of the ten kinds most like it, plus deviation of
the same spectrum that holds 0.35 of the variance. Of 2,527 such vectors the median cosine similarity to the 1st, 4th
and 10th neighbour is 0.66, 0.53 and 0.50, of the real ones 0.67, 0.58 and 0.54; of random pairs 0.34 and 0.28. Queries
are other photos of the same kinds. The axes of the space are the principal ones: turning it would change no distance.

Nothing here is asserted. Needs 17 GB of disk and 10 GB of memory for a million; `--n` says how many.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.catalogue.categories import CATEGORIES, OLDER_CATEGORIES, CataloguePhoto
from shared.index.ann import ExactIndex
from shared.index.hybrid import HybridIndex
from shared.index.snapshot import VECTORS, open_files
from shared.jobs.contract import Distinct, SearchRequest
from shared.model.embedder import Embeddings
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.snapshots import write_snapshot

DIMENSION = 2048
N_KINDS = 2500
N_QUERIES = 256
K = 10
N_TURNS = 5
FINGERPRINT = "f" * 64
# Share of the variance along the i-th principal axis, measured; between these along straight lines in log-log.
SPECTRUM = {
    0: 0.048, 1: 0.034, 2: 0.030, 4: 0.021, 8: 0.015, 16: 0.0093, 32: 0.0055, 64: 0.0029, 128: 0.0015,
    256: 0.00067, 512: 0.00028, 1024: 0.00006, 2047: 0.000012,
}  # fmt: skip
_CHUNK_ROWS = 8192


def main() -> None:
    """Print tables; write `var/bench/index.json` and `var/bench/index.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=Path, help="where the vectors lie meanwhile; default: var/bench")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="1,000 photos")
    options = parser.parse_args()
    if options.step:
        print(json.dumps({"build": _build, "search": _search}[options.step](options.scratch, options.n)))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = Report("index", dimension=DIMENSION, k=K, turns=N_TURNS)
    sizes = (1000,) if options.quick else (10_000, 100_000, options.n)
    for n in sorted({min(size, options.n) for size in sizes}):
        with tempfile.TemporaryDirectory(dir=options.scratch or RESULTS) as scratch:
            measured = _step("build", scratch, n) | _step("search", scratch, n)
        report.add("index", n=n, **{name: value for name, value in measured.items() if not isinstance(value, dict)})
        report.add("files and facts", n=n, **measured["bytes"], facts=json.dumps(measured["facts"]))
        for how in ("exact", "search"):
            report.add("one query", photos=n, how=how, ms=measured[f"{how}_ms"])
    report.plot("one query", x="photos", y="ms", by="how")
    report.finish()


def _step(name: str, scratch: str, n: int) -> dict[str, Any]:
    """Each in a process of its own, so that memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.index", "--step", name, "--scratch", scratch, "--n", str(n)]
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return measured


def synthetic(n: int, seed: int) -> Iterator[FloatArray]:
    """Chunks of (m, DIMENSION) float32 with L2 norm 1, `n` rows in all; the kinds are the same for every seed."""
    places, shares = np.array(list(SPECTRUM)), np.array(list(SPECTRUM.values()))
    variances = np.exp(np.interp(np.log1p(np.arange(DIMENSION)), np.log1p(places), np.log(shares)))
    spread = np.sqrt(0.71 * variances / variances.sum()).astype(np.float32)
    kinds = np.random.default_rng(17).standard_normal((N_KINDS, DIMENSION), dtype=np.float32) * spread
    like = np.argsort((kinds**2).sum(1) - 2 * kinds @ kinds.T, axis=1)[:, 1:11]
    rng = np.random.default_rng([17, seed])
    for start in range(0, n, _CHUNK_ROWS):
        size = min(_CHUNK_ROWS, n - start)
        kind = rng.integers(N_KINDS, size=size)
        other = like[kind, rng.integers(10, size=size)]
        share = rng.uniform(0, 0.5, (size, 1)).astype(np.float32)
        vectors = rng.standard_normal((size, DIMENSION), dtype=np.float32) * spread * np.float32(0.35**0.5)
        vectors += np.float32(0.65**0.5) * (kinds[kind] * (1 - share) + kinds[other] * share)
        vectors[:, -1] += np.float32(0.29**0.5)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield vectors


def _photos(n: int) -> Iterator[CataloguePhoto]:
    categories = np.random.default_rng(17).integers(len(CATEGORIES), size=n).tolist()
    for row, category in enumerate(categories):
        yield CataloguePhoto(f"{row:012d}", f"l{row // 2}", category, Path("/photos/x.jpg"), f"{row:064x}")


def _build(scratch: Path, n: int) -> dict[str, Any]:
    source = np.lib.format.open_memmap(scratch / "source.npy", "w+", dtype=np.float32, shape=(n, DIMENSION))
    start = 0
    for chunk in synthetic(n, seed=0):
        source[start : start + len(chunk)] = chunk
        start += len(chunk)
    source.flush()
    vectors = np.load(scratch / "source.npy", mmap_mode="r")
    scores = np.broadcast_to(np.zeros((1, len(CATEGORIES)), dtype=np.float32), (n, len(CATEGORIES)))
    peak_mb = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak_mb[0] = max(peak_mb[0], _anonymous_mb())

    threading.Thread(target=watch, daemon=True).start()
    store = index_store(scratch)
    began, began_cpu = time.perf_counter(), time.process_time()
    version = write_snapshot(
        store,
        _photos(n),
        Embeddings(vectors, scores),
        fingerprint=FINGERPRINT,
        catalogue="synthetic",
        catalogue_digest="0" * 64,
    )
    build_s = time.perf_counter() - began
    done.set()
    (scratch / "source.npy").unlink()
    facts = read_index_manifest(store, version).index
    assert facts is not None  # written just now
    return {
        "build_s": build_s,
        "build_cpu_s": time.process_time() - began_cpu,
        "build_peak_mb": peak_mb[0],
        "bytes": {path.name: path.stat().st_size for path in sorted(store.path(version).iterdir())},
        "facts": facts.model_dump(mode="json"),
        "kind": facts.kind,
    }


def _search(scratch: Path, n: int) -> dict[str, Any]:
    queries = next(synthetic(N_QUERIES, seed=1))
    store = index_store(scratch)
    version = store.newest()
    manifest = read_index_manifest(store, version)
    before_mb = _resident_mb()
    began = time.perf_counter()
    snapshot = open_files(store.path(version), version, manifest)
    open_ms = 1e3 * (time.perf_counter() - began)
    request = SearchRequest(k=K)
    for query in queries:
        snapshot.search(query, request)
    resident_mb = _resident_mb(VECTORS)
    vectors = snapshot.vectors(slice(None))
    exact = replace(snapshot, _index=HybridIndex(ExactIndex(vectors), vectors, None))
    exact.search(queries[0], request)  # from here on all of it is in memory
    search_ms, exact_ms = [], []
    for turn in range(N_TURNS):
        chosen = queries[turn::N_TURNS]
        exact_ms += [_ms(exact.search, query, request) for query in chosen[:4]]
        search_ms += [_ms(snapshot.search, query, request) for query in chosen]
    truth = snapshot.exact_nearest(queries, K)[1]
    found = [[hit.row for hit in snapshot.search(query, request)] for query in queries]
    filtered = {
        "category": SearchRequest(k=K, category=CATEGORIES[OLDER_CATEGORIES.position("Appliances")]),
        "exclude_listing": SearchRequest(k=K, exclude_listing="l1"),
        "distinct": SearchRequest(k=K, distinct=Distinct.LISTING),
        "k=100": SearchRequest(k=100),
    }
    began = time.perf_counter()
    store.verify(version)
    verify_s = time.perf_counter() - began
    return {
        "open_ms": open_ms,
        "verify_s": verify_s,
        "search_ms": statistics.median(search_ms),
        "exact_ms": statistics.median(exact_ms),
        "ratio": statistics.median(exact_ms) / statistics.median(search_ms),
        "recall_at_10": float(np.mean([len({*a} & {*b}) / K for a, b in zip(truth.tolist(), found, strict=True)])),
        "resident_mb": resident_mb,
        "resident_before_mb": before_mb,
        "float32_share": resident_mb / (n * DIMENSION * 4 / 2**20),
        "filtered": {
            name: {
                "ms": statistics.median(_ms(snapshot.search, query, asked) for query in queries[:100]),
                "recall": statistics.mean(
                    _recall(snapshot.search, exact.search, query, asked) for query in queries[:20]
                ),
            }
            for name, asked in filtered.items()
        },
    }


def _recall(search: Callable[..., Any], exact: Callable[..., Any], query: FloatArray, asked: SearchRequest) -> float:
    truth = {hit.row for hit in exact(query, asked)}
    return len(truth & {hit.row for hit in search(query, asked)}) / len(truth)


def _ms(search: Callable[..., object], query: FloatArray, asked: SearchRequest) -> float:
    began = time.perf_counter()
    search(query, asked)
    return 1e3 * (time.perf_counter() - began)


def _resident_mb(mapped: str = "") -> float:
    """Of this process; without what is mapped of one file, which the system may drop at any time."""
    kb, name = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[-1]
        elif words[0] == "Rss:" and not (mapped and name.endswith(mapped)):
            kb += int(words[1])
    return kb / 1024


def _anonymous_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


if __name__ == "__main__":
    main()
