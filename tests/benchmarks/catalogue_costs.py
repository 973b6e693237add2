"""What catalogues of 10 million and of a billion photos cost, from unit costs that are measured here or handed in."""

import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np

from shared.artifacts.snapshots import PHOTOS, index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.catalogue.tables import CatalogueReader, scan_catalogue
from shared.changes.log import BEGINNING
from shared.changes.overrides import compact
from shared.index.vectors.building import CODES, SCORES
from shared.index.vectors.compression import EXACT_UP_TO, n_lists_for
from shared.index.vectors.stored_vectors import VECTORS
from shared.jobs.reindex_contract import ReindexMode
from shared.model.embedder import Embeddings
from shared.reindex.plan import make_plan
from tests.benchmarks.store_costs import StoreCosts
from tests.benchmarks.support.fleet_model import Fleet
from tests.benchmarks.support.report import Report, Value
from tests.benchmarks.unit_costs import Measured
from tests.support.snapshots import write_snapshot

_PHOTOS = (10_000_000, 1_000_000_000)
_DAY_S = 86_400
_GPU_PHOTOS_PER_S = 1000  # a round figure, to be replaced by the reader's
_PHOTO_BYTES = 100_000  # likewise
_NUMBER_BYTES = 4
_N_PLANNED = 20_000
_N_INDEXED = EXACT_UP_TO + 10_000
_AXES = 256  # of a compressed index, however many dimensions the vectors have


@dataclass(frozen=True)
class PhotoBytes:
    """Of one photo of a large catalogue.

    Attributes:
        planned: in the memory of the worker that plans a reindex of it.
        codes: that a search of the compressed index reads, in memory.
        rows: of the table of photos and what is filtered by, on disk.
        scores: of the 13 categories, on disk.
    """

    planned: float
    codes: float
    rows: float
    scores: float


def measure_photo() -> PhotoBytes:
    """In about a minute."""
    with tempfile.TemporaryDirectory() as scratch:
        planned = _planned(Path(scratch)) / _N_PLANNED
    with tempfile.TemporaryDirectory() as scratch:
        n_bytes = _indexed(Path(scratch))
    scores, codes, _ = (n_bytes.pop(name) for name in (SCORES, CODES, VECTORS))
    codes -= n_lists_for(_N_INDEXED) * _AXES * _NUMBER_BYTES  # centres: of so few photos each has many, later none
    return PhotoBytes(planned, codes / _N_INDEXED, sum(n_bytes.values()) / _N_INDEXED, scores / _N_INDEXED)


def add_costs(report: Report, measured: Measured, store: StoreCosts, photo: PhotoBytes, dimensions: int) -> None:
    """Everything embedded once; then what an index of it takes."""
    costs = measured.costs

    def add(what: str, unit: str, of_a_photo: float) -> None:
        amounts: dict[str, Value] = {f"{n:,}": float(f"{n * of_a_photo:.3g}") for n in _PHOTOS}
        report.add("a catalogue embedded once", what=what, **amounts, unit=unit)

    shard = 1 / Fleet(1).shard_photos
    embedding = dimensions * _NUMBER_BYTES + photo.scores
    add("one worker", "h", 1 / costs.photos_per_s / 3600)
    add("workers, to be done in a day", "", 1 / costs.photos_per_s / _DAY_S)
    add(f"one worker whose GPU does {_GPU_PHOTOS_PER_S:,} photos/s", "h", 1 / _GPU_PHOTOS_PER_S / 3600)
    add("memory of the worker that plans it", "GB", photo.planned / 1e9)
    add("store: photos read", "million requests", store.photo_reads / 1e6)
    add(f"store: photos read, {_PHOTO_BYTES // 1000} kB each", "GB", store.photo_reads * _PHOTO_BYTES / 1e9)
    add("store: shards read, and looked for", "million requests", shard * store.shard_reads / 1e6)
    add("store: shards written, listed, removed", "million requests", shard * store.shard_writes / 1e6)
    add("store: embeddings written, and read twice", "GB", embedding / 1e9)
    add("Redis: commands", "million", shard * measured.shard_commands / 1e6)
    add("Redis: busy, to be done in a day", "of its thread", shard * costs.shard_redis_s / _DAY_S)

    for name, size, in_milvus in (
        ("files, every vector compared", dimensions, False),
        ("files, compressed", dimensions, False),
        ("files, compressed", 512, False),
        ("Milvus", dimensions, True),
        ("Milvus", 512, True),
    ):
        vectors = size + _NUMBER_BYTES if name.endswith("compressed") else size * _NUMBER_BYTES  # int8 where compressed
        compared = name.endswith("compared")
        memory = 0 if in_milvus else vectors if compared else photo.codes
        disk = photo.rows + (0 if in_milvus else vectors + photo.scores + (0 if compared else photo.codes))
        for n in _PHOTOS:
            report.add(
                "an index, GB",
                lies_in=name,
                dimensions=size,
                photos=f"{n:,}",
                memory_of_a_worker=float(f"{n * memory / 1e9:.3g}"),
                disk_of_a_host=float(f"{n * disk / 1e9:.3g}"),
                in_milvus=float(f"{n * (vectors + photo.scores) * in_milvus / 1e9:.3g}"),
            )

    for what, amount in (
        ("a reindex besides photos and shards: reads", store.reindex_reads),
        ("a reindex besides photos and shards: writes", store.reindex_writes),
        ("a worker's start: reads", store.start_reads),
        ("a worker's start: MB besides the index", store.start_bytes / 1e6),
        ("a worker, ever after: reads a second", store.watch_reads_per_s),
    ):
        report.add("the object store", what=what, amount=amount)
    report.add("Redis", what="commands of a job", amount=measured.job_commands)
    report.add("Redis", what="its thread, of a job, ms", amount=1e3 * costs.redis_s)
    report.add("Redis", what="jobs/s that fill its thread", amount=1 / costs.redis_s)
    report.add("Redis", what="commands of a shard", amount=measured.shard_commands)
    report.add("Redis", what="its thread, of a shard, ms", amount=1e3 * costs.shard_redis_s)


def _names(n: int) -> Iterator[tuple[str, str]]:
    """Ids of photos and of their listings, as long as real ones."""
    for number in range(n):
        yield str(UUID(int=number)), str(UUID(int=number // 2))


def _planned(directory: Path) -> int:
    """Bytes of Python while a catalogue is read and planned that nothing is known of."""
    (directory / "images").mkdir()
    listings = dict.fromkeys(listing for _, listing in _names(_N_PLANNED))
    rows = [f"{listing},{CATEGORIES[0]}" for listing in listings]
    (directory / "Products.csv").write_text("\n".join(["id,category", *rows, ""]))
    rows = [f"{image},{listing}" for image, listing in _names(_N_PLANNED)]
    (directory / "Images.csv").write_text("\n".join(["id,product_id", *rows, ""]))
    for image, _ in _names(_N_PLANNED):
        (directory / "images" / f"{image}.jpg").write_text(image)
    CatalogueReader().read(directory)  # what this loads for the first time is not the catalogue's
    tracemalloc.start()
    catalogue = CatalogueReader(directory / "digests.json").read(directory, scan_catalogue(directory))
    compacted = compact(catalogue.photos, {}, [], storage=directory, fingerprint="f")
    plan = make_plan(catalogue, compacted, None, fingerprint="f", mode=ReindexMode.ALL, compacted_through=BEGINNING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(plan.missing) == _N_PLANNED
    return peak


def _indexed(directory: Path) -> dict[str, int]:
    """Bytes by file of an index of vectors that have no more dimensions than its codes."""
    rng = np.random.default_rng(17)
    vectors = rng.standard_normal((_N_INDEXED, _AXES), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = (
        CataloguePhoto(image, listing, row % len(CATEGORIES), directory / f"images/{image}.jpg", f"{row:064x}")
        for row, (image, listing) in enumerate(_names(_N_INDEXED))
    )
    version = write_snapshot(
        index_store(directory),
        photos,
        Embeddings(vectors, np.zeros((_N_INDEXED, len(CATEGORIES)), dtype=np.float32)),
        fingerprint="f" * 64,
        catalogue="made up",
        catalogue_digest="0" * 64,
        root=directory,
    )
    files = {path.name: path.stat().st_size for path in index_store(directory).path(version).iterdir()}
    assert PHOTOS in files
    return files
