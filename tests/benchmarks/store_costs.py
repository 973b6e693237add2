"""How often a reindex, a worker's start and its watching ask an object store for something: counted by the store."""

import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import requests

from shared.artifacts.bucket import Bucket
from shared.artifacts.snapshots import bundle_store, index_store
from shared.model.bundle import import_bundle
from tests.benchmarks.support.fleet_model import Fleet
from tests.benchmarks.support.installation import UNCACHED, reindexed, serving
from tests.benchmarks.support.material import catalogue
from tests.benchmarks.support.report import RESULTS
from tests.e2e.conftest import Service, Stack
from tests.support.object_store import ObjectStore

_N_LISTINGS = 403
_WATCHED_S = 10.0
_REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) /[^/? ]+(\S*) HTTP')
# What a request is for, by what its path or query has in it; the first counts.
_PURPOSES = {
    "PROMOTIONS.json": "watching",
    "catalogue/images/": "photos",
    "embeddings/": "shards",
    "catalogue": "other",
    "bundles/": "other",
    "indexes/": "other",
}


@dataclass(frozen=True)
class StoreCosts:
    """Requests; those that list are counted with those that write, as stores charge them.

    Attributes:
        photo_reads: of a photo that was not known before.
        shard_reads, shard_writes: of a shard of a reindex.
        reindex_reads, reindex_writes: of a reindex besides.
        start_reads: of a worker whose host has nothing yet, and `start_bytes` that it fetches, without the index.
        watch_reads_per_s: of a worker, whatever it does.
    """

    photo_reads: float
    shard_reads: float
    shard_writes: float
    reindex_reads: int
    reindex_writes: int
    start_reads: int
    start_bytes: int
    watch_reads_per_s: float


class _Counted:
    """The requests of a store since the last time one asked."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._seen = 0

    def take(self) -> Counter[tuple[str, bool]]:
        """How many, by what for, and whether they write or list."""
        text = self._log.read_text()
        new, self._seen = text[self._seen :], len(text)
        counted: Counter[tuple[str, bool]] = Counter()
        for method, path in _REQUEST.findall(new):
            purpose = next((told for part, told in _PURPOSES.items() if part in path), "other")
            counted[purpose, method not in ("GET", "HEAD") or "list-type" in path] += 1
        return counted


def measure_store(home: Path, *, n_listings: int = _N_LISTINGS) -> StoreCosts:
    """Reindex a small catalogue that lies in a store, as everything does; in about a minute.

    Args:
        home: of an installation with a bundle.
    """
    with tempfile.TemporaryDirectory() as name, _store(Path(name)) as (url, counted):
        scratch = Path(name)
        n_photos = _publish(url, home, catalogue(RESULTS / "installed", n_listings), scratch)
        settings = {**UNCACHED, "store": url, "catalogue": f"{url}/catalogue"}
        with serving(scratch / "home", scratch, n_workers=0, settings=settings) as stack:
            stack.start("worker", **settings)
            reindexed(stack.url, mode="changed")  # it waits for the worker, which has to fetch the bundle first
            embedded = counted.take()
            stack.wait_ready()
            counted.take()
            reindexed(stack.url, mode="all")
            for_reindex = counted.take()
            counted.take()
            time.sleep(_WATCHED_S)
            watched = counted.take()
            host = Service(scratch / "other", stack.redis_url)
            try:
                host.start("worker", **settings)
                _wait_workers(stack, 2)
                started = counted.take()
            finally:
                host.close()
        index = index_store(Bucket(url, scratch / "tests"))
        fetched = sum(file.stat().st_size for file in (scratch / "other/fetched").rglob("*") if file.is_file())
        shards = n_photos / Fleet(1).shard_photos
        return StoreCosts(
            photo_reads=embedded["photos", False] / n_photos,
            shard_reads=for_reindex["shards", False] / shards,
            shard_writes=for_reindex["shards", True] / shards,
            reindex_reads=for_reindex["other", False],
            reindex_writes=for_reindex["other", True] + for_reindex["photos", True],
            start_reads=started["other", False],
            start_bytes=fetched - index.n_bytes(index.newest()),
            watch_reads_per_s=watched.total() / _WATCHED_S,
        )


@contextmanager
def _store(scratch: Path) -> Iterator[tuple[str, _Counted]]:
    with ObjectStore(scratch / "log") as server, mock.patch.dict(os.environ, server.environment()):
        yield server.make_bucket(), _Counted(scratch / "log")


def _publish(url: str, home: Path, source: Path, scratch: Path) -> int:
    """Put bundle and catalogue there; returns how many photos."""
    bucket = Bucket(url, scratch / "publisher")
    local, shared = bundle_store(home), bundle_store(bucket)
    shared.promote(import_bundle(shared, local.path(local.newest())))
    for file in sorted(source.rglob("*")):
        if file.is_file():
            bucket.upload(f"catalogue/{file.relative_to(source)}", file)
    return len(list((source / "images").iterdir()))


def _wait_workers(stack: Stack, n_workers: int) -> None:
    while requests.get(stack.url + "/readyz", timeout=5).json()["workers"] < n_workers:
        time.sleep(0.1)
