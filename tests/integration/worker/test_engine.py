"""The engine on a real bundle and index: hot swap under load, damage refused while the old keeps serving."""

import resource
import shutil
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.errors import IndexMissing, ModelNotCompiled
from shared.index.snapshot import open_snapshot
from shared.jobs.answers_contract import EmbedResult, Match, SearchResult
from shared.jobs.contract import (
    EmbedRequest,
    SearchRequest,
)
from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Embeddings
from shared.model.matching import Matching
from tests.support.installation import Installation
from tests.support.limits import no_more_files
from tests.support.once import small_catalogue
from tests.support.snapshots import UNUSABLE, write_matching, write_reversed, write_snapshot
from worker.serving import model_manager
from worker.serving.engine import Engine
from worker.serving.loaded_model import EngineOptions

PHOTO_BYTES = 224 * 224 * 3


@pytest.fixture
def home(built: Installation, tmp_path: Path) -> Path:
    shutil.copytree(built.home, tmp_path / "home")
    return tmp_path / "home"


def large_version(home: Path, n_rows: int, seed: int) -> str:
    """A snapshot of random embeddings, large enough to be seen in the memory of this process."""
    fingerprint = fingerprint_of(home)
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_rows, 1280), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    photos = [CataloguePhoto(f"{seed}-{row}", f"l{row}", row % 13, Path()) for row in range(n_rows)]
    scores = np.zeros((n_rows, 13), dtype=np.float32)
    digest = f"{seed:064}"
    return write_snapshot(
        index_store(home),
        photos,
        Embeddings(vectors, scores),
        fingerprint=fingerprint,
        catalogue="random",
        catalogue_digest=digest,
    )


def fingerprint_of(home: Path) -> str:
    return open_bundle(bundle_store(home)).manifest.fingerprint


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_fifty_promotions_under_load_fail_no_search_mix_no_versions_and_cost_no_memory(home: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    store = index_store(home)
    # 5 MB each: forty that are not let go would be far more than the tolerance.
    names = {large_version(home, 1000, seed): f"{seed}-" for seed in (1, 2)}
    versions = list(names)
    store.promote(versions[0])
    engine.refresh()
    stop = threading.Event()
    met: set[str] = set()
    errors: list[Exception] = []
    photo = np.random.default_rng(3).integers(0, 256, PHOTO_BYTES, dtype=np.uint8).tobytes()

    def search() -> None:
        while not stop.is_set():
            try:
                result = engine.run(SearchRequest(), photo)
                assert isinstance(result, SearchResult)
                assert len(result.neighbours) == 4
                assert all(n.image_id.startswith(names[result.index_version]) for n in result.neighbours)
                met.add(result.index_version)
            except Exception as exc:
                errors.append(exc)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    memory_mb = []
    for turn in range(50):
        store.promote(versions[(turn + 1) % 2])
        engine.refresh()
        memory_mb.append(resident_mb())
    stop.set()
    for thread in threads:
        thread.join()
    engine.close()
    assert errors == []
    assert met == set(versions)
    assert max(memory_mb[40:]) < 1.05 * max(memory_mb[:10])


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another catalogue than that of `home`."""
    return small_catalogue(tmp_path_factory, 13, seed=9)


def test_a_new_bundle_takes_over_and_jobs_of_the_old_one_still_end(home: Path, other: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    before = engine.info()
    Installation(home, other).prepare()
    outcomes: list[object] = []
    rng = np.random.default_rng(4)
    photos = [rng.integers(0, 256, PHOTO_BYTES, dtype=np.uint8).tobytes() for _ in range(12)]
    threads = [
        threading.Thread(target=lambda photo=photo: outcomes.append(engine.run(EmbedRequest(), photo)))
        for photo in photos
    ]
    for thread in threads:
        thread.start()
    engine.refresh()
    for thread in threads:
        thread.join(30)
    after = engine.info()
    assert before is not None
    assert after is not None
    assert before.model_fingerprint != after.model_fingerprint
    fingerprints = {o.model_fingerprint for o in outcomes if isinstance(o, EmbedResult)}
    assert len(outcomes) == 12
    assert fingerprints <= {before.model_fingerprint, after.model_fingerprint}
    engine.close()


def test_a_new_bundle_that_cannot_be_compiled_for_want_of_threads_takes_over_once_it_can(
    home: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(home)
    engine.refresh()
    before = engine.info()
    Installation(home, other).prepare()
    short = ModelNotCompiled("graph.xml cannot be compiled here (Resource temporarily unavailable)")
    with mock.patch.object(model_manager, "start_model", side_effect=short) as start:
        for _ in range(3):
            engine.refresh()
            assert engine.problem == str(short)
            assert engine.info() == before
        assert start.call_count == 1  # not at every look
    monkeypatch.setattr(engine.live, "_try_again_at", 0.0)  # half a minute later
    engine.refresh()
    after = engine.info()
    assert engine.problem is None
    assert before is not None
    assert after is not None
    assert before.model_fingerprint != after.model_fingerprint
    engine.close()


def test_a_model_that_another_replaced_while_its_index_was_opened_does_not_serve(home: Path, other: Path) -> None:
    bundles, first = bundle_store(home), bundle_store(home).current()
    assert first is not None
    Installation(home, other).prepare()
    second = bundles.current()
    assert second is not None

    def promote_first(after: str) -> tuple[()]:
        if bundles.current() == second:
            bundles.promote(first)
            engine.live.promoted()  # as a reindex does
        return ()

    engine = Engine(home, read_changes=promote_first)
    engine.refresh()
    assert not engine.ready
    index_store(home).rollback()
    engine.refresh()
    assert isinstance(engine.run(EmbedRequest(), bytes(PHOTO_BYTES)), EmbedResult)
    engine.close()


def test_whatever_cannot_be_used_is_named_and_the_old_one_serves(home: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    serving = engine.info()
    store = index_store(home)
    good = store.current()
    assert good is not None
    for name, (promote, said) in UNUSABLE.items():
        promote(home)
        engine.refresh()
        assert engine.info() == serving, name
        assert said in str(engine.problem), name
        assert isinstance(engine.run(SearchRequest(), bytes(PHOTO_BYTES)), SearchResult)
        store.promote(good)
        engine.refresh()
        assert engine.problem is None
    engine.close()


def test_an_index_for_which_no_more_files_may_be_opened_takes_over_once_they_may(home: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    before = engine.info()
    index_store(home).promote(version := write_reversed(home))
    for n_free in range(4):  # the pointer, the manifest, the files
        with no_more_files(but=n_free):
            engine.refresh()
        assert engine.info() == before
        assert engine.problem
    engine.refresh()
    after = engine.info()
    engine.close()
    assert after
    assert (after.version, engine.problem) == (version, None)


def test_a_search_tells_whether_the_same_thing_is_there_once_its_model_can(home: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    photo = open_snapshot(index_store(home), fingerprint=fingerprint_of(home)).photo(0)
    own = SearchRequest(image_id=photo.image_id)
    assert "match" not in engine.run(own, None).model_dump_json()
    matching = Matching(k=8, bias=-3.0, lead=20.0, nearness=1.0, same_from=0.9)
    bundle_store(home).promote(write_matching(home, matching))
    engine.refresh()

    def matched(request: SearchRequest) -> Match | None:
        result = engine.run(request, None)
        assert isinstance(result, SearchResult)
        return result.match

    found = matched(own)
    assert found is not None
    # A photo of the index asks for its thing in other listings; what only shapes the answer changes nothing.
    assert found.listing_id != photo.listing_id
    for shaped in (
        {"k": 1, "distinct": "listing"},
        {"prefer": "same_kind", "min_score": 0.9},
        {"facets": ["category"], "exclude_listing": photo.listing_id},
    ):
        assert matched(SearchRequest.model_validate({"image_id": photo.image_id, **shaped})) == found
    whole = matched(SearchRequest(listing_id=photo.listing_id))
    assert whole is not None
    assert whole.listing_id != photo.listing_id
    other = matched(SearchRequest(image_id=photo.image_id, exclude_listing=found.listing_id))
    assert other is not None
    assert other.listing_id not in (photo.listing_id, found.listing_id)
    category = CATEGORIES[(photo.category + 1) % len(CATEGORIES)]
    there = matched(SearchRequest(image_id=photo.image_id, category=category))
    assert there is None or there.probability <= found.probability
    # A model of this build carries two calibrations, the older one for earlier builds.
    doubting = matching.model_copy(update={"doubt": 0.5})
    bundle_store(home).promote(write_matching(home, matching, doubting))
    engine.refresh()
    doubted = matched(own)
    assert doubted is not None
    assert doubted.image_id == found.image_id
    assert doubted.probability != found.probability
    engine.close()


@pytest.mark.parametrize("name", UNUSABLE)
def test_nothing_is_served_from_what_cannot_be_used(home: Path, name: str) -> None:
    promote, said = UNUSABLE[name]
    promote(home)
    engine = Engine(home)
    engine.refresh()
    assert not engine.ready
    assert said in str(engine.problem)


def test_without_artifacts_a_job_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing):
        Engine(tmp_path).run(SearchRequest(), bytes(PHOTO_BYTES))


def embedded(engine: Engine, request: EmbedRequest, pixels: bytes | None = None) -> EmbedResult:
    result = engine.run(request, pixels)
    assert isinstance(result, EmbedResult)
    return result


def test_several_photos_are_one_query_in_one_pass(home: Path) -> None:
    engine = Engine(home, EngineOptions(max_batch=4))
    engine.refresh()
    photos = np.random.default_rng(5).integers(0, 256, (3, PHOTO_BYTES), dtype=np.uint8)
    together = embedded(engine, EmbedRequest(), photos.tobytes())
    assert engine.stats().batch_sizes == {3: 1}
    alone = [embedded(engine, EmbedRequest(), photo.tobytes()) for photo in photos]
    mean = np.mean(np.array([one.embedding for one in alone]), axis=0)
    # Reduced precision gives slightly other numbers in a batch than alone.
    np.testing.assert_allclose(np.array(together.embedding), mean / np.linalg.norm(mean), atol=1e-2)
    np.testing.assert_allclose(together.scores, np.mean([one.scores for one in alone], axis=0), rtol=0.02, atol=0.05)
    engine.close()


def test_a_listing_as_the_query_is_the_mean_of_its_photos_and_finds_others(home: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    live = engine.live.current
    assert live is not None
    snapshot = live.index.snapshot
    listing_id = snapshot.photo(0).listing_id
    rows = np.array(snapshot.rows_of(listing_id))
    mean = snapshot.vectors(rows).mean(axis=0)
    query = np.array(embedded(engine, EmbedRequest(listing_id=listing_id)).embedding, np.float32)
    np.testing.assert_allclose(query, mean / np.linalg.norm(mean), atol=1e-6)
    found = engine.run(SearchRequest(k=4, listing_id=listing_id), None)
    assert isinstance(found, SearchResult)
    similar = snapshot.vectors(slice(None)) @ query
    similar[rows] = -1
    assert [one.row for one in found.neighbours] == np.argsort(-similar, kind="stable")[:4].tolist()
    engine.close()
