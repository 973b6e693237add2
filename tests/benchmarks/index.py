"""Search at 10,000, 100,000 and a million photos of 2048 dimensions (or `N=10000000`), beside exact search.

The vectors are made up (seeded), after 2,527 photos of a real marketplace embedded by EfficientNet-Lite0: a shared mean
that holds 0.29 of the squared length, and around it the variances of SPECTRUM along the principal axes. 2,500 kinds of
thing are drawn from that; a photo is a point between its kind and one of the ten kinds most like it, plus deviation of
the same spectrum that holds 0.35 of the variance. Of 2,527 such vectors the median cosine similarity to the 1st, 4th
and 10th neighbour is 0.66, 0.53 and 0.50, of the real ones 0.67, 0.58 and 0.54; of random pairs 0.34 and 0.28. Queries
are other photos of the same kinds. The axes of the space are the principal ones: turning it would change no distance.

They are never together on disk or in memory: the build reads them block by block, as it reads those of a reindex, and
what is right is found by exact float32 products with the queries on the way.

Nothing here is asserted. Needs 3.2 GB of disk and 3 GB of memory for a million photos, 32 and 6 GB for ten; a run that
was killed goes on where it was.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.array_types import FloatArray, IntArray
from shared.artifacts.snapshots import VectorKind, index_store, read_index_manifest
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType
from shared.catalogue.categories import CATEGORIES, OLDER_CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.index.delta.index import DeltaIndex
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.index.vectors.ann import ExactIndex, Nearest
from shared.index.vectors.stored_vectors import VECTORS, kinds_for
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
_DRAWN_ROWS = 1024
_SAVED_EVERY = 16  # chunks
_COMPARED_ROWS = 131_072  # by exact search, whose time is then multiplied
_TOLD_EVERY_S = 30
_PAGE = 500  # changes, as workers read them
_ROUNDED = 1e-3  # by which scores may differ where embeddings are stored in int8
_TRUTH = "truth.npz"
_BESIDE_VECTORS = 1_100  # bytes a photo: codes, twice while they are sorted, and the table of photos


def main() -> None:
    """Print tables; write `var/bench/index.json` and `var/bench/index.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=Path, default=RESULTS, help="where the index lies meanwhile")
    parser.add_argument("--vectors", type=VectorKind, choices=[*VectorKind], help="how embeddings are stored")
    parser.add_argument("--only", action="store_true", help="that many photos, and not fewer too")
    parser.add_argument("--keep", action="store_true", help="do not remove the index")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="1,000 photos")
    options = parser.parse_args()
    if options.step == "build":
        print(json.dumps(_build(options.scratch, options.n, options.vectors)))
        return
    if options.step == "search":
        print(json.dumps(_search(options.scratch, options.n)))
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = Report("index", dimension=DIMENSION, k=K, turns=N_TURNS)
    sizes = (1000,) if options.quick else (options.n,) if options.only else (10_000, 100_000, options.n)
    for n in sorted({min(size, options.n) for size in sizes}):
        # Of a fixed name, so that a run after one that was killed goes on with what it left.
        scratch = options.scratch / f"index-{n}"
        scratch.mkdir(parents=True, exist_ok=True)
        if (message := _too_little_room(scratch, n, options.vectors)) is not None:
            print(message)
            scratch.rmdir()
            continue
        measured = _step("build", scratch, n, options.vectors) | _step("search", scratch, n, options.vectors)
        report.add("index", n=n, **{name: value for name, value in measured.items() if not isinstance(value, dict)})
        report.add("files and facts", n=n, **measured["bytes"], facts=json.dumps(measured["facts"]))
        report.add("milliseconds with a filter", n=n, **measured["filtered"])
        report.add("one in a hundred changed live", n=n, **measured["live"])
        for how in ("exact", "search"):
            report.add("one query", photos=n, how=how, ms=measured[f"{how}_ms"])
        if not options.keep:
            shutil.rmtree(scratch)
    report.plot("one query", x="photos", y="ms", by="how")
    report.finish()


def _too_little_room(scratch: Path, n: int, vectors: VectorKind | None) -> str | None:
    """What to say where the disk has not the bytes that are needed."""
    itemsize = {VectorKind.INT8: 1, VectorKind.FLOAT16: 2, VectorKind.FLOAT32: 4}
    needed = n * (DIMENSION * itemsize[kinds_for(n, DIMENSION, vectors)[0]] + _BESIDE_VECTORS)
    there = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    if (free := shutil.disk_usage(scratch).free) >= needed - there:
        return None
    return f"{n:,} photos skipped: they need {needed:,} bytes under {scratch}, which has {free + there:,}"


def _step(name: str, scratch: Path, n: int, vectors: VectorKind | None) -> dict[str, Any]:
    """Each in a process of its own, so that memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.index", "--step", name, "--scratch", str(scratch), "--n", str(n)]
    command += ["--vectors", vectors] if vectors else []
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return measured


class Synthetic:
    """Made-up embeddings, which need not be in memory together: any rows can be asked for again.

    Args:
        n: rows in all.
        seed: of the photos; the kinds are the same for every seed.

    Attributes:
        shape: (n, DIMENSION).
    """

    n_categories = len(CATEGORIES)

    def __init__(self, n: int, seed: int) -> None:
        self.shape = (n, DIMENSION)
        self._seed = seed
        places, shares = np.array(list(SPECTRUM)), np.array(list(SPECTRUM.values()))
        variances = np.exp(np.interp(np.log1p(np.arange(DIMENSION)), np.log1p(places), np.log(shares)))
        self._spread = np.sqrt(0.71 * variances / variances.sum()).astype(np.float32)
        kinds = np.random.default_rng(17).standard_normal((N_KINDS, DIMENSION), dtype=np.float32) * self._spread
        self._like = np.argsort((kinds**2).sum(1) - 2 * kinds @ kinds.T, axis=1)[:, 1:11]
        self._kinds = kinds * np.float32(0.65**0.5)

    def vectors(self, start: int, stop: int) -> FloatArray:
        """Rows from one to another, (m, DIMENSION) float32 with L2 norm 1."""
        made = np.empty((stop - start, DIMENSION), np.float32)
        for number in range(start // _DRAWN_ROWS, -(-stop // _DRAWN_ROWS)):
            first = number * _DRAWN_ROWS
            low, high = max(start, first), min(stop, first + _DRAWN_ROWS)
            made[low - start : high - start] = self._drawn(number)[low - first : high - first]
        return made

    def kinds(self) -> IntArray:
        """The kind of each row."""
        drawn = [self._begun(number)[1] for number in range(-(-self.shape[0] // _DRAWN_ROWS))]
        return np.concatenate(drawn)[: self.shape[0]]

    def _begun(self, number: int) -> tuple[np.random.Generator, IntArray]:
        """What draws some rows, and their kinds."""
        rng = np.random.default_rng([17, self._seed, number])
        return rng, rng.integers(N_KINDS, size=_DRAWN_ROWS)

    def _drawn(self, number: int) -> FloatArray:
        rng, kind = self._begun(number)
        other = self._like[kind, rng.integers(10, size=_DRAWN_ROWS)]
        share = rng.uniform(0, 0.5, (_DRAWN_ROWS, 1)).astype(np.float32)
        vectors = rng.standard_normal((_DRAWN_ROWS, DIMENSION), dtype=np.float32)
        vectors *= self._spread * np.float32(0.35**0.5)
        vectors += self._kinds[kind] * (1 - share)
        vectors += self._kinds[other] * share
        vectors[:, -1] += np.float32(0.29**0.5)
        vectors /= np.sqrt(np.vecdot(vectors, vectors))[:, None]
        return vectors

    def read(self, start: int, stop: int) -> Embeddings:
        """Rows from one to another, as `EmbeddingSource.read`."""
        return Embeddings(self.vectors(start, stop), np.zeros((stop - start, self.n_categories), np.float32))


def synthetic(n: int, seed: int) -> Iterator[FloatArray]:
    """Chunks of (m, DIMENSION) float32 with L2 norm 1, `n` rows in all; the kinds are the same for every seed."""
    made = Synthetic(n, seed)
    for start in range(0, n, _CHUNK_ROWS):
        yield made.vectors(start, min(n, start + _CHUNK_ROWS))


class Watched(Synthetic):
    """Made-up embeddings that are compared with queries as they are read for the first time.

    Args:
        n, seed: as of Synthetic.
        queries: (m, DIMENSION).
        saved: a file that tells, after a kill, what was found so far.
    """

    def __init__(self, n: int, seed: int, queries: FloatArray, saved: Path) -> None:
        super().__init__(n, seed)
        self.nearest = Nearest(queries, K)
        self._saved = saved
        self._next = 0
        if saved.exists():
            with np.load(saved) as found:
                self._next, self.nearest.scores, self.nearest.rows = int(found["next"]), found["scores"], found["rows"]

    def read(self, start: int, stop: int) -> Embeddings:
        """As `Synthetic.read`."""
        embeddings = super().read(start, stop)
        if start <= self._next < stop:
            self.nearest.add(embeddings.vectors[self._next - start :], self._next)
            self._next = stop
            if stop == self.shape[0] or stop % (_SAVED_EVERY * _CHUNK_ROWS) == 0:
                aside = self._saved.with_suffix(".tmp.npz")
                np.savez(aside, next=stop, scores=self.nearest.scores, rows=self.nearest.rows)
                aside.replace(self._saved)
        return embeddings


_ATTRIBUTES = AttributeSchema(
    (Attribute(name="price", type=AttributeType.NUMBER), Attribute(name="colour", type=AttributeType.KEYWORD))
)


def _photos(n: int) -> Iterator[CataloguePhoto]:
    rng = np.random.default_rng(17)
    for start in range(0, n, _CHUNK_ROWS):
        categories = rng.integers(len(CATEGORIES), size=_CHUNK_ROWS).tolist()
        prices, colours = rng.integers(50_000, size=_CHUNK_ROWS), rng.integers(12, size=_CHUNK_ROWS)
        for row in range(start, min(n, start + _CHUNK_ROWS)):
            of = (row - start) // 2  # two photos a listing
            payload = f'{{"colour":"colour {colours[of]}","price":{prices[of] / 100}}}'
            path = Path(f"/photos/{row:012d}.jpg")
            yield CataloguePhoto(f"{row:012d}", f"l{row // 2}", categories[of], path, f"{row:064x}", payload)


def _queries() -> FloatArray:
    return Synthetic(N_QUERIES, seed=1).vectors(0, N_QUERIES)


def _build(scratch: Path, n: int, vectors: VectorKind | None) -> dict[str, Any]:
    peak_mb = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak_mb[0] = max(peak_mb[0], _anonymous_mb())

    threading.Thread(target=watch, daemon=True).start()
    store = index_store(scratch)
    resumed = (scratch / _TRUTH).exists()
    source = Watched(n, 0, _queries(), scratch / _TRUTH)
    began, began_cpu, told_at = time.perf_counter(), time.process_time(), [0.0]

    def tell(rows: int, total: int) -> None:
        if time.monotonic() >= told_at[0] + _TOLD_EVERY_S:
            told_at[0] = time.monotonic()
            since = time.perf_counter() - began
            print(f"{rows:,} of {total:,} after {since:,.0f} s, {peak_mb[0]:,.0f} MB", file=sys.stderr, flush=True)

    version = write_snapshot(
        store,
        _photos(n),
        source,
        fingerprint=FINGERPRINT,
        catalogue="synthetic",
        catalogue_digest="0" * 64,
        attributes=_ATTRIBUTES,
        vectors=vectors,
        resume=f"{n:016x}",
        progress=tell,
    )
    build_s = time.perf_counter() - began
    done.set()
    facts = read_index_manifest(store, version).index
    assert facts is not None  # written just now
    n_bytes = {path.name: path.stat().st_size for path in sorted(store.path(version).iterdir())}
    return {
        "resumed": resumed,
        "build_s": build_s,
        "build_cpu_s": time.process_time() - began_cpu,
        "build_peak_mb": peak_mb[0],
        "bytes": n_bytes,
        "bytes_a_photo": sum(n_bytes.values()) / n,
        "facts": facts.model_dump(mode="json"),
        "kind": facts.kind,
        "vectors": facts.vectors,
    }


def _search(scratch: Path, n: int) -> dict[str, Any]:
    queries = _queries()
    store = index_store(scratch)
    version = store.newest()
    before_mb = resident_mb()
    began = time.perf_counter()
    snapshot = open_snapshot(store, fingerprint=FINGERPRINT, version=version)
    open_ms = 1e3 * (time.perf_counter() - began)
    request = SearchRequest(k=K)
    first_ms = [_ms(snapshot.search, query, request) for query in queries]
    memory_mb = resident_mb(VECTORS)
    some = snapshot.vectors(slice(0, _COMPARED_ROWS))
    exact = ExactIndex(some)
    exact.search(queries[0], K)  # from here on all of it is in memory
    search_ms, exact_ms = [], []
    for turn in range(N_TURNS):
        chosen = queries[turn::N_TURNS]
        exact_ms += [
            _ms(lambda query, asked: exact.search(query, asked.k), query, request) * n / len(some)
            for query in chosen[:4]
        ]
        search_ms += [_ms(snapshot.search, query, request) for query in chosen]
    with np.load(scratch / _TRUTH) as known:
        truth = known["rows"].tolist()
    found = [[hit.row for hit in snapshot.search(query, request)] for query in queries]
    filtered = {
        "category": SearchRequest(k=K, category=CATEGORIES[OLDER_CATEGORIES.position("Appliances")]),
        "exclude_listing": SearchRequest(k=K, exclude_listing="l1"),
        "distinct": SearchRequest(k=K, distinct=Distinct.LISTING),
        "k=100": SearchRequest(k=100),
    }
    return {
        "live": _with_changes(snapshot, n, queries, request),
        "open_ms": open_ms,
        "first_ms": statistics.median(first_ms),
        "search_ms": statistics.median(search_ms),
        "search_p95_ms": statistics.quantiles(search_ms, n=20)[-1],
        "exact_ms": statistics.median(exact_ms),
        "ratio": statistics.median(exact_ms) / statistics.median(search_ms),
        "recall_at_10": float(np.mean([len({*a} & {*b}) / K for a, b in zip(truth, found, strict=True)])),
        "resident_mb": memory_mb,
        "resident_before_mb": before_mb,
        "float32_share": memory_mb / (n * DIMENSION * 4 / 2**20),
        "filtered": {
            name: statistics.median([_ms(snapshot.search, query, asked) for query in 2 * [*queries[:100]]][100:])
            for name, asked in filtered.items()
        },
    }


def _with_changes(snapshot: VectorIndex, n: int, queries: FloatArray, request: SearchRequest) -> dict[str, Any]:
    """What a search takes and misses after one photo in a hundred was put anew live."""
    n_changed = max(1, n // 100)
    put = Synthetic(n_changed, seed=2).vectors(0, n_changed)
    scores = np.zeros(len(CATEGORIES), np.float32)

    def change(number: int) -> Change:
        photo = PutPhoto(f"l{number * 50}", 0, "00" * 32, FINGERPRINT, put[number], scores)
        return Change(f"{number + 1}-0", f"{number * 100:012d}", number + 1, photo)

    delta = DeltaIndex(snapshot, lambda photo: None)
    began = time.perf_counter()
    for start in range(0, n_changed, _PAGE):
        delta.apply(change(number) for number in range(start, min(n_changed, start + _PAGE)))
    applied_s = time.perf_counter() - began
    delta.search(queries[0], request)
    alone, together = [], []
    for query in queries:
        alone.append(_ms(snapshot.search, query, request))
        together.append(_ms(delta.search, query, request))
    # Of the ten nearest of those that were put, those that the search's worst hit does not beat must have been found.
    missed = []
    for query in queries[:64]:
        hits = delta.search(query, request)
        exact = put @ query
        wanted = {len(snapshot) + place for place in np.flatnonzero(exact > hits[-1].score + _ROUNDED).tolist()}
        missed.append(len(wanted - {hit.row for hit in hits}) / K)
    one = change(0)
    began = time.perf_counter()
    delta.apply([replace(one, entry_id=f"{n_changed + 1}-0", sequence=n_changed + 1)])
    return {
        "changed": n_changed,
        "applied_s": applied_s,
        "one_more_ms": 1e3 * (time.perf_counter() - began),
        "alone_ms": statistics.median(alone),
        "ms": statistics.median(together),
        "p95_ms": statistics.quantiles(together, n=20)[-1],
        "missed": float(np.mean(missed)),
        "resident_mb": resident_mb(VECTORS),
    }


def _ms(search: Callable[..., object], query: FloatArray, asked: SearchRequest) -> float:
    began = time.perf_counter()
    search(query, asked)
    return 1e3 * (time.perf_counter() - began)


def resident_mb(*mapped: str) -> float:
    """Of this process; without what is mapped of some files, which the system may drop at any time."""
    kb, name = 0, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            name = words[-1]
        elif words[0] == "Rss:" and not name.endswith(mapped):
            kb += int(words[1])
    return kb / 1024


def _anonymous_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) / 1024


if __name__ == "__main__":
    main()
