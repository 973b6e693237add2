"""Live quality with a real model, real indexes and a real Valkey: searches are shadowed, damage and drift are told."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import redis
from PIL import Image

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexManifest, bundle_store, index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.index.delta.index import DeltaIndex
from shared.index.drafts import draft_index
from shared.index.snapshot import open_files
from shared.index.traffic import read_reference
from shared.index.vector_index import VectorIndex
from shared.index.vectors.building import CODES
from shared.index.vectors.stored_vectors import VECTORS
from shared.jobs.contract import SearchRequest
from shared.model.bundle import open_bundle
from shared.model.embedder import Embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import Pixels, PreprocessSpec, decode_photo
from shared.quality.checks import check
from shared.quality.store import KEPT_S, QualityStore
from shared.redis_client import connect
from shared.reindex.traffic import measure_traffic
from tests.conftest import encode
from tests.support.bundles import make_bundle
from worker.serving.engine import Engine
from worker.serving.shadow import Answered, ShadowSearches

WITHIN = 200
N_INDEXED, N_QUERIES = 64, 120
SPEC = PreprocessSpec(size_px=64)


def photo(seed: int) -> bytes:
    """Smooth colours, warmer rather than colder, as what people photograph is; four to three."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 220, (6, 8, 3)) + rng.normal((18, 0, -18), 12, 3)
    image = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8))
    return encode(image.resize((96, 72), Image.Resampling.BICUBIC), "PNG")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A model of random weights, and an index with the reference that a build makes of it."""
    home = tmp_path_factory.mktemp("home")
    bundles, store = bundle_store(home), index_store(home)
    bundles.promote(make_bundle(home, SPEC))
    bundle = open_bundle(bundles)
    files = {f"{seed:064x}": photo(seed) for seed in range(N_INDEXED)}
    photos = []
    for number, content in enumerate(files.values()):
        path = home / f"{number}.png"
        path.write_bytes(content)
        photos.append(CataloguePhoto(str(number), f"l{number}", number % 13, path, hashlib.sha256(content).hexdigest()))
    pixels = np.stack([decode_photo(content, SPEC) for content in files.values()])
    with draft_index(store, fingerprint=bundle.manifest.fingerprint) as draft:
        facts = draft.write(photos, open_embedder(bundle).embed(pixels))
        manifest = _manifest(len(photos), bundle.manifest.embedding_dim, bundle.manifest.fingerprint, facts)
        ticks: list[int] = []
        reference = measure_traffic(draft.open(manifest), photos, SPEC, frozenset(), None, lambda: ticks.append(1))
        assert reference is not None
        assert ticks
        assert np.isfinite(reference.mean).all()
        reference.write(draft.artifact.directory)
        draft.seal(manifest)
    store.promote(draft.artifact.version)
    engine = Engine(home)
    engine.refresh()
    yield engine
    engine.close()


def _manifest(count: int, dimension: int, fingerprint: str, facts: Any) -> IndexManifest:
    return IndexManifest(
        count=count, dimension=dimension, fingerprint=fingerprint, catalogue="c", catalogue_digest="d",
        built_at="2026-01-01T00:00:00+00:00", index=facts,
    )  # fmt: skip


@pytest.fixture
def store(client: redis.Redis) -> QualityStore:
    return QualityStore(client)


def shadowed(engine: Engine, store: QualityStore, prepare: Callable[[bytes], Pixels], n: int) -> dict[str, str]:
    """Search for photos that the index has not; returns what the checks say after the last."""
    shadow = ShadowSearches(store, share=1)
    engine.on_answered = shadow.shadow
    for seed in range(1000, 1000 + n):
        engine.run(SearchRequest(), prepare(photo(seed)).tobytes())
    engine.on_answered = lambda answered: None
    live = engine.live.current
    assert live is not None
    found = check(store.last(live.index.manifest.fingerprint), live.index.version)
    return {one.name: one.state for one in found}


def test_new_photos_are_fine_and_cropped_or_recoloured_ones_are_not(
    served: Engine, store: QualityStore, client: redis.Redis
) -> None:
    assert shadowed(served, store, lambda file: decode_photo(file, SPEC), N_QUERIES) == {
        "recall": "fine", "damage": "fine", "drift": "fine",
    }  # fmt: skip
    report = store.report(3600, None)
    assert report.figures.n_searches == N_QUERIES
    assert report.figures.recall_at_10 == 1
    assert report.figures.rows_damaged == 0 < report.figures.rows_audited
    assert sum(report.figures.categories.values()) == pytest.approx(1, abs=0.01)
    assert set(report.figures.stages) == {"model", "search"}
    client.flushdb()
    crop = SPEC.model_copy(update={"fit": "crop"})
    assert shadowed(served, store, lambda file: decode_photo(file, crop), N_QUERIES)["drift"] == "alarm"
    client.flushdb()
    swapped = shadowed(served, store, lambda file: decode_photo(file, SPEC)[..., ::-1].copy(), N_QUERIES)
    assert swapped["drift"] == "alarm"
    assert N_QUERIES <= WITHIN


def test_what_redis_holds_is_bounded_and_expires(served: Engine, store: QualityStore, client: redis.Redis) -> None:
    shadowed(served, store, lambda file: decode_photo(file, SPEC), 3)
    live = served.live.current
    assert live is not None
    [one, *_] = store.last(live.index.manifest.fingerprint)
    for _ in range(450):
        store.add(one)
    assert len(store.last(one.fingerprint)) == 400
    assert store.total()["n"] == 453
    keys = client.keys()
    assert len(keys) <= 5  # an hour may end meanwhile
    lasting = [key for key in keys if client.ttl(key) == -1]
    assert lasting == [b"lookalike:quality:total"]
    assert all(0 < client.ttl(key) <= KEPT_S for key in keys if key not in lasting)
    assert sum(client.memory_usage(key) or 0 for key in keys) < 200_000


def test_neither_redis_nor_an_error_nor_a_backlog_hurts_a_search(served: Engine, valkey_url: str) -> None:
    away = QualityStore(connect("redis://127.0.0.1:1/0", timeout_s=0.2))
    shadow = ShadowSearches(away, share=1)
    gate, failed = threading.Event(), threading.Event()
    whole = shadow.shadow

    def slow(answered: Answered) -> Any:
        gate.wait(20)
        try:
            return whole(answered)
        except redis.RedisError:
            failed.set()
            raise

    shadow.shadow = slow  # type: ignore[method-assign]
    served.on_answered = shadow.offer
    shadow.start()
    began = time.monotonic()
    for seed in range(40):
        served.run(SearchRequest(), decode_photo(photo(seed), SPEC).tobytes())
    assert time.monotonic() - began < 10  # the thread stands since the first of them
    gate.set()
    assert failed.wait(20)
    assert shadow.is_alive()
    shadow.stop()
    served.on_answered = lambda answered: None


def test_a_photo_that_is_sent_again_and_again_counts_once_and_a_share_of_nothing_is_none(
    served: Engine, store: QualityStore
) -> None:
    same = decode_photo(photo(5), SPEC)
    shadowed(served, store, lambda file: same, 20)
    assert store.total()["n"] == 1
    idle = ShadowSearches(store, share=0.25, draw=iter([0.3, 0.2, 0.9]).__next__)
    for _ in range(3):
        idle.offer(None)  # type: ignore[arg-type]
    assert idle._waiting.qsize() == 1


def test_a_reindex_takes_the_pixels_of_known_photos_from_the_reference_before(served: Engine) -> None:
    live = served.live.current
    assert live is not None
    index = live.index.snapshot
    gone = [replace(one, path=Path("/gone.png")) for one in index.photos()]
    again = measure_traffic(index, gone, SPEC, frozenset(), index.reference, lambda: None)
    without = measure_traffic(index, gone, SPEC, frozenset(), None, lambda: None)
    assert index.reference is not None
    assert again is not None
    assert without is not None
    np.testing.assert_allclose(again.mean, index.reference.mean, atol=1e-5)
    known = [index.reference.deviations(None, live.index.vectors([0])[0]), without.deviations(None, again.axes[0])]
    assert all([one is None for one in some] == [True] * 5 + [False] * 16 for some in known)


# Damage: an index of two thousand photos of which 1 % is not what was written


def _clustered(n: int) -> FloatArray:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((40, 48))[rng.integers(40, size=n)] + 0.7 * rng.standard_normal((n, 48))
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _large(directory: Path, change: Callable[[Path], None], *, exact: bool) -> VectorIndex:
    vectors = _clustered(2000)
    photos = [CataloguePhoto(str(row), f"l{row}", row % 13, Path("x.jpg")) for row in range(len(vectors))]
    scores = np.zeros((len(vectors), len(CATEGORIES)), np.float32)
    with draft_index(index_store(directory), fingerprint="f" * 64) as draft:
        facts = draft.write(photos, Embeddings(vectors, scores), exact_up_to=10_000 if exact else 0)
        change(draft.artifact.directory)
        draft.seal(manifest := _manifest(len(vectors), 48, "f" * 64, facts))
    return open_files(index_store(directory).path(draft.artifact.version), "v", manifest)


def _change_codes(directory: Path) -> None:
    index: Any = faiss.read_index(str(directory / CODES))
    lists: Any = faiss.downcast_index(index.index)
    rng = np.random.default_rng(1)
    for number in range(lists.nlist):
        if size := lists.invlists.list_size(number):
            codes = faiss.rev_swig_ptr(lists.invlists.get_codes(number), size * lists.code_size)
            changed = rng.random(size) < 0.01
            codes.reshape(size, -1)[changed, : lists.code_size // 4] ^= 0x10
    faiss.write_index(index, str(directory / CODES))


def _change_vectors(directory: Path) -> None:
    vectors = np.load(directory / VECTORS)
    vectors[np.random.default_rng(1).random(len(vectors)) < 0.01, 7] += 1e-3
    np.save(directory / VECTORS, vectors)


@pytest.mark.parametrize(
    ("change", "exact"), [(_change_codes, False), (_change_vectors, False), (_change_vectors, True)]
)
def test_one_row_in_a_hundred_that_is_changed_is_found_within_200_searches(
    tmp_path: Path, change: Callable[[Path], None], exact: bool
) -> None:
    index = _large(tmp_path, change, exact=exact)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert any(index.audit(32, rng).n_damaged for _ in range(WITHIN))


@pytest.mark.parametrize("exact", [True, False])
def test_as_many_rows_as_ten_thousand_searches_audit_are_whole(tmp_path: Path, exact: bool) -> None:
    index = _large(tmp_path, lambda directory: None, exact=exact)
    audit = index.audit(10_000 * 32, np.random.default_rng(1))
    assert audit == (320_000 if exact else 640_000, 0)
    assert read_reference(tmp_path) is None
    assert DeltaIndex(index, lambda put: None).hidden_rows.tolist() == []
