"""Searches with filters that leave 50 % to 0.01 % of the photos, beside none and brute force over what is left.

The vectors are those of `tests.benchmarks.index`. Each photo has an attribute that is independent of its vector
(`chance`), and one that its kind decides (`kind`), so that the photos that a filter leaves are far from most queries. A
filter is a range or the set of values in it. Nothing here is asserted. `--keep DIR` uses an index built before.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, as_payload
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.index.snapshot import IndexSnapshot, open_files
from shared.index.vectors.ann import ExactIndex
from shared.index.words.hybrid import HybridIndex
from shared.jobs.contract import SearchRequest
from shared.model.embedder import Embeddings
from tests.benchmarks.index import DIMENSION, FINGERPRINT, N_KINDS, K, Synthetic, synthetic
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.snapshots import write_snapshot

SHARES = (0.5, 0.1, 0.01, 0.001, 0.0001)
N_QUERIES = 100
_STEPS = 10_000  # values of an attribute, equally frequent
SCHEMA = AttributeSchema(
    (Attribute(name="chance", type=AttributeType.NUMBER), Attribute(name="kind", type=AttributeType.NUMBER))
)


def main() -> None:
    """Print tables; write `var/bench/filters.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--keep", type=Path, help="directory of an index that is made there once")
    parser.add_argument("--quick", action="store_true", help="1,000 photos")
    options = parser.parse_args()
    n = 1000 if options.quick else options.n
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(exist_ok=True)
        snapshot = _opened(directory, n)
        report = Report("filters", photos=len(snapshot), dimension=DIMENSION, k=K, queries=N_QUERIES)
        _measure(snapshot, report)
        report.finish()


def _opened(directory: Path, n: int) -> IndexSnapshot:
    store = index_store(directory)
    if not store.versions():
        vectors = embeddings_in(directory, n)
        scores = np.broadcast_to(np.zeros((1, len(CATEGORIES)), dtype=np.float32), (n, len(CATEGORIES)))
        write_snapshot(
            store,
            _photos(n),
            Embeddings(vectors, scores),
            fingerprint=FINGERPRINT,
            catalogue="synthetic",
            catalogue_digest="0" * 64,
            attributes=SCHEMA,
        )
        (directory / "source.npy").unlink(missing_ok=True)
    version = store.newest()
    return open_files(store.path(version), version, read_index_manifest(store, version))


def embeddings_in(directory: Path, n: int) -> FloatArray:
    """The vectors of `n` photos, (n, DIMENSION); of many, in a file there that is removed by whoever asked."""
    if n <= 200_000:
        return np.concatenate(list(synthetic(n, seed=0)))
    source = np.lib.format.open_memmap(directory / "source.npy", "w+", dtype=np.float32, shape=(n, DIMENSION))
    start = 0
    for chunk in synthetic(n, seed=0):
        source[start : start + len(chunk)] = chunk
        start += len(chunk)
    source.flush()
    mapped: FloatArray = np.load(directory / "source.npy", mmap_mode="r")
    return mapped


def _photos(n: int) -> Iterator[CataloguePhoto]:
    chance = np.random.default_rng(17).integers(_STEPS, size=n).tolist()
    kinds = _steps_of(n).tolist()
    for row in range(n):
        payload = as_payload({"chance": chance[row], "kind": kinds[row]})
        yield CataloguePhoto(f"{row:012d}", f"l{row}", 0, Path("/photos/x.jpg"), f"{row:064x}", payload)


def _steps_of(n: int) -> IntArray:
    """The kind of each vector of `synthetic`, on a scale of _STEPS."""
    kinds = kinds_of(n) * (_STEPS // N_KINDS)
    return kinds + np.random.default_rng(18).integers(_STEPS // N_KINDS, size=n)


def kinds_of(n: int, seed: int = 0) -> IntArray:
    """The kind of each vector of `synthetic`."""
    return Synthetic(n, seed).kinds()


def _measure(snapshot: IndexSnapshot, report: Report) -> None:
    queries = next(synthetic(N_QUERIES, seed=1))
    vectors = snapshot.vectors(slice(None))
    exact = replace(snapshot, _index=HybridIndex(ExactIndex(vectors), vectors, None))
    plain = SearchRequest(k=K)
    for key in ("chance", "kind"):
        for share in SHARES:
            below = round(share * _STEPS)
            asked = SearchRequest(k=K, filter={"must": [{"key": key, "range": {"gte": 0, "lt": below}}]})
            as_set = SearchRequest(k=K, filter={"must": [{"key": key, "match": {"any": list(range(below))}}]})
            plain_ms, filtered_ms, exact_ms, recalls, fewer, other = [], [], [], [], 0, 0
            exact.search(queries[0], asked)
            for number, query in enumerate(queries):
                plain_ms.append(_ms(snapshot, query, plain))
                filtered_ms.append(_ms(snapshot, query, asked))
                found = [hit.row for hit in snapshot.search(query, asked)]
                if number < 50:
                    exact_ms.append(_ms(exact, query, asked))
                    truth = [hit.row for hit in exact.search(query, asked)]
                    recalls.append(len({*truth} & {*found}) / len(truth) if truth else 1)
                    fewer += len(found) < len(truth)
                    if below <= 1000 and number < 5:
                        other += found != [hit.row for hit in snapshot.search(query, as_set)]
            p95, plain_p95, exact_p95 = (float(np.quantile(ms, 0.95)) for ms in (filtered_ms, plain_ms, exact_ms))
            report.add(
                "filters", attribute=key, share=share, recall=round(statistics.mean(recalls), 4), fewer=fewer,
                set_differs=other, p95_ms=round(p95, 2), of_plain=round(p95 / plain_p95, 2),
                of_brute_force=round(p95 / exact_p95, 2), first_ms=round(_first_ms(snapshot, queries[0], asked), 2),
            )  # fmt: skip


def _ms(snapshot: IndexSnapshot, query: FloatArray, asked: SearchRequest) -> float:
    began = time.perf_counter()
    snapshot.search(query, asked)
    return 1e3 * (time.perf_counter() - began)


def _first_ms(snapshot: IndexSnapshot, query: FloatArray, asked: SearchRequest) -> float:
    """With a filter that was not asked before."""
    snapshot._filters._matching.clear()
    return _ms(snapshot, query, asked)


if __name__ == "__main__":
    main()
