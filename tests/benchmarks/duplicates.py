"""Duplicates: how many copies are found among real photos, what else is taken for one, and what 100,000 photos cost.

A thousand photos of a catalogue are copied, a sixth each as `tests.support.copies` does. All photos, copies and
originals, count as of listings of their own, so that other photos of one listing are what must not be found. Real
duplicates of the catalogue, across its listings, are told apart and count neither way.

The cost of many photos is that of its parts: a look of each, the search for similar ones (vectors of
`tests.benchmarks.index`), and the comparison of those that are. Nothing here is asserted.
"""

import argparse
import hashlib
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import bundle_store, index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.duplicates.groups import Evidence
from shared.duplicates.looks import Look, look_of
from shared.duplicates.search import same_pictures, similar_pictures, sorted_pair
from shared.duplicates.verdicts import Pair
from shared.index.delta.live_photos import LivePhoto, LivePhotos
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.model.bundle import ModelBundle, open_bundle
from shared.model.embedder import Embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import WORKING_SIDE_PX, decode_photo, open_photo, upright
from shared.settings import Backbone
from tests.benchmarks.index import DIMENSION, FINGERPRINT, synthetic
from tests.benchmarks.support.installation import installed
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.copies import COPIES, jpeg
from tests.support.snapshots import write_snapshot

_BATCH = 16


def main() -> None:
    """Print tables; write `var/bench/duplicates.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, help="an installation; default: one with drawn photos")
    parser.add_argument("--catalogue", type=Path, help="whose index that is")
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--n", type=int, default=100_000, help="photos of the search that is timed")
    parser.add_argument("--quick", action="store_true", help="a few drawn photos")
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    home = options.home or installed(Backbone.EFFICIENTNET_LITE0)
    catalogue = options.catalogue or home.parent / "catalogue-52"
    n_copies, n_photos = (24, 1000) if options.quick else (options.copies, options.n)
    with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
        report = Report("duplicates", home=str(home), copies=n_copies)
        per_pair_s, looks_s = _find_copies(home, catalogue, n_copies, report, Path(scratch))
        _time_search(n_photos, per_pair_s, looks_s, report, Path(scratch))
        report.finish()


def _find_copies(home: Path, catalogue: Path, n: int, report: Report, scratch: Path) -> tuple[float, float]:
    """Measure recall and precision; returns seconds a compared pair and seconds a look."""
    bundle = open_bundle(bundle_store(home))
    index = open_snapshot(index_store(home), fingerprint=bundle.manifest.fingerprint)
    photos = [LivePhoto(one.image_id, one.listing_id, one.sha256, str(one.path)) for one in index.photos()]
    files = {photo.sha256: (catalogue / photo.path).read_bytes() for photo in photos}
    distinct = list({photo.sha256: photo for photo in photos}.values())
    rng = np.random.default_rng(17)
    chosen = [distinct[i] for i in rng.permutation(len(distinct))[:n].tolist()]
    made: dict[str, tuple[str, str]] = {}  # kind and original's SHA-256, by that of the copy
    for number, photo in enumerate(chosen):
        kind = list(COPIES)[number % len(COPIES)]
        copy = jpeg(COPIES[kind](upright(open_photo(files[photo.sha256]), WORKING_SIDE_PX), rng))
        sha256 = hashlib.sha256(copy).hexdigest()
        made[sha256], files[sha256] = (kind, photo.sha256), copy
    began = time.process_time()
    looks: dict[str, Look] = {sha256: look_of(content) for sha256, content in files.items()}
    looks_s = (time.process_time() - began) / len(files)
    live = _among(index, photos, _embedded(bundle, [files[sha256] for sha256 in made]), list(made), scratch)
    similar = similar_pictures(live, live.rows(), lambda *told: None)
    copies = {sorted_pair(sha256, original) for sha256, (_, original) in made.items()}

    def compared(pairs: dict[Pair, float]) -> dict[Pair, Evidence]:
        return same_pictures(pairs, lambda wanted: {sha256: looks[sha256] for sha256 in wanted}, lambda *told: None)

    same = compared(similar)
    listings = defaultdict(set)
    for photo in photos:
        listings[photo.sha256].add(photo.listing_id)
    others = {
        pair: score
        for pair, score in similar.items()
        if not made.keys() & {*pair} and not listings[pair[0]] & listings[pair[1]]
    }
    began = time.process_time()
    compared(others)  # of many photos, nearly all that are similar are such
    per_pair_s = (time.process_time() - began) / max(1, len(others))
    for kind in COPIES:
        wanted = [sorted_pair(sha256, original) for sha256, (of, original) in made.items() if of == kind]
        report.add(
            "copies",
            kind=kind,
            copies=len(wanted),
            candidates=sum(pair in similar for pair in wanted),
            found=sum(pair in same for pair in wanted),
        )
    outcome = Counter(_meaning(pair, made, listings) for pair in same if pair not in copies)
    n_found = sum(pair in same for pair in copies)
    report.add(
        "altogether",
        recall=n_found / len(copies),
        precision=n_found / max(1, n_found + outcome["originals of one listing"]),
        photos=len(live.photos),
        pairs_of_one_listing=sum(len(list(combinations(rows, 2))) for rows in _by_listing(photos).values()),
        similar_pairs=len(similar),
        **dict(outcome),
    )
    return per_pair_s, looks_s


def _meaning(pair: tuple[str, str], made: dict[str, tuple[str, str]], listings: dict[str, set[str]]) -> str:
    """What was taken for the same picture beside the copies and their originals."""
    one, other = (made[sha256][1] if sha256 in made else sha256 for sha256 in pair)
    related = bool(listings[one] & listings[other])
    if not made.keys() & {*pair}:
        return "originals of one listing" if related else "originals of different listings"
    return "copies beside others of one listing" if related else "copies beside others of different listings"


def _by_listing(photos: list[LivePhoto]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for photo in photos:
        found[photo.listing_id].add(photo.sha256)
    return found


def _embedded(bundle: ModelBundle, contents: list[bytes]) -> FloatArray:
    embedder = open_embedder(bundle)
    found = []
    for start in range(0, len(contents), _BATCH):
        pixels = [decode_photo(content, bundle.manifest.preprocess) for content in contents[start : start + _BATCH]]
        found.append(embedder.embed(np.stack(pixels)).vectors)
    return np.concatenate(found)


def _among(
    index: VectorIndex, photos: list[LivePhoto], vectors: FloatArray, sha256s: list[str], scratch: Path
) -> LivePhotos:
    """The photos of an index and copies, each of a listing of its own, in an index of their own."""
    all_photos = [LivePhoto(photo.image_id, photo.image_id, photo.sha256) for photo in photos]
    all_photos += [LivePhoto(sha256, sha256, sha256) for sha256 in sha256s]
    together = np.concatenate([np.asarray(index.vectors(slice(None))), vectors])
    return LivePhotos(_written(scratch / "copies", all_photos, together), all_photos, frozenset(), vectors[:0])


def _written(directory: Path, photos: list[LivePhoto], vectors: FloatArray) -> VectorIndex:
    store = index_store(directory)
    rows: Iterator[CataloguePhoto] = (
        CataloguePhoto(photo.image_id, photo.listing_id, 0, Path("/photos/x.jpg"), photo.sha256) for photo in photos
    )
    scores = np.broadcast_to(np.zeros((1, len(CATEGORIES)), dtype=np.float32), (len(photos), len(CATEGORIES)))
    made = Embeddings(vectors, scores)
    version = write_snapshot(store, rows, made, fingerprint=FINGERPRINT, catalogue="made up", catalogue_digest="0" * 64)
    return open_snapshot(store, fingerprint=FINGERPRINT, version=version)


def _time_search(n: int, per_pair_s: float, looks_s: float, report: Report, scratch: Path) -> None:
    vectors = np.concatenate(list(synthetic(n, seed=0)))
    photos = [LivePhoto(str(row), str(row), f"{row:064x}") for row in range(n)]
    index = _written(scratch / "many", photos, vectors)
    live = LivePhotos(index, photos, frozenset(), vectors[:0])
    began, cpu_began = time.perf_counter(), time.process_time()
    similar = similar_pictures(live, live.rows(), lambda *told: None)
    search_s, search_cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    report.add(
        "many photos, seconds of one core",
        photos=n,
        dimension=DIMENSION,
        looks=looks_s * n,
        search=search_cpu_s,
        search_by_the_clock=search_s,
        similar_pairs=len(similar),
        comparison=per_pair_s * len(similar),
        a_similar_pair_ms=1e3 * per_pair_s,
        a_look_ms=1e3 * looks_s,
    )


if __name__ == "__main__":
    main()
