"""The engine on a real bundle and index: hot swap under load, damage refused while the old keeps serving."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.build_index import prepare
from pipeline.demo import generate
from shared.errors import IndexMissing
from shared.jobs import EmbedRequest, EmbedResult, SearchRequest, SearchResult
from shared.settings import Settings
from shared.vision.index import VECTORS, index_store
from worker.engine import Engine

PHOTO_BYTES = 224 * 224 * 3


def settings(home: Path, catalogue: Path) -> Settings:
    given = {"home": home, "catalogue": catalogue, "backbone": "efficientnet_lite0", "precision": "float32"}
    return Settings.model_validate(given)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home with a live bundle and index, and its catalogue."""
    directory = tmp_path_factory.mktemp("engine")
    generate(directory / "catalogue", n_listings=13)
    prepare(settings(directory / "home", directory / "catalogue"), lambda line: None)
    return directory / "home", directory / "catalogue"


@pytest.fixture
def home(built: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(built[0], tmp_path / "home")
    return tmp_path / "home"


def test_searches_meet_one_whole_version_while_another_is_promoted(home: Path, built: tuple[Path, Path]) -> None:
    engine = Engine(home)
    engine.refresh()
    store = index_store(home)
    versions = [store.current()]
    prepare(settings(home, built[1]), lambda line: None, rebuild_index=True)
    versions.append(store.current())
    assert None not in versions
    stop = threading.Event()
    met: set[str] = set()
    errors: list[Exception] = []
    rng = np.random.default_rng(3)
    photo = rng.integers(0, 256, PHOTO_BYTES, dtype=np.uint8).tobytes()

    def search() -> None:
        while not stop.is_set():
            try:
                result = engine.run(SearchRequest(), photo)
                assert isinstance(result, SearchResult)
                assert len(result.neighbours) == 4
                met.add(result.index_version)
            except Exception as exc:
                errors.append(exc)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        version = versions[turn % 2]
        assert version is not None
        store.promote(version)
        engine.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    engine.close()
    assert errors == []
    assert met <= set(versions)


def test_a_new_bundle_takes_over_and_jobs_of_the_old_one_still_end(home: Path, tmp_path: Path) -> None:
    engine = Engine(home)
    engine.refresh()
    before = engine.info()
    generate(tmp_path / "other", n_listings=13, seed=9)
    prepare(settings(home, tmp_path / "other"), lambda line: None)
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


def test_a_damaged_snapshot_is_refused_and_the_old_one_serves(home: Path, built: tuple[Path, Path]) -> None:
    engine = Engine(home)
    engine.refresh()
    serving = engine.info()
    prepare(settings(home, built[1]), lambda line: None, rebuild_index=True)
    store = index_store(home)
    version = store.current()
    assert version is not None
    vectors = store.path(version) / VECTORS
    content = bytearray(vectors.read_bytes())
    content[2000] ^= 1
    vectors.write_bytes(content)
    engine.refresh()
    assert engine.info() == serving
    assert "sha256" in str(engine.problem)
    assert isinstance(engine.run(SearchRequest(), bytes(PHOTO_BYTES)), SearchResult)
    engine.close()


def test_without_artifacts_a_job_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(IndexMissing):
        Engine(tmp_path).run(SearchRequest(), bytes(PHOTO_BYTES))
