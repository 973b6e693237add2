"""Models of two specs take turns: each photo is answered by one that takes it as it was made, or refused in words"""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from copy import copy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import redis

from api.uploads.bodies import PhotoReader
from api.uploads.preprocessing import ServingPreprocessing
from shared.artifacts.home import keep_live_photo
from shared.artifacts.snapshots import bundle_store, index_store
from shared.artifacts.store import MANIFEST
from shared.changes.log import Change, PutPhoto
from shared.errors import PhotoExpired
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import (
    SearchRequest,
)
from shared.jobs.store import JobStore
from shared.photos.images import PreprocessSpec, decode_photo, open_photo, working_copy
from tests.conftest import Clock, encode, noise_image
from tests.integration.conftest import application, settings
from tests.support.bundles import make_bundle, make_index
from tests.support.limits import no_more_files
from worker.serving import model_manager as live
from worker.serving.engine import Engine

PHOTOS = [encode(noise_image(seed, (200, 120))) for seed in range(6)]
OLD, NEW = PreprocessSpec(size_px=96), PreprocessSpec(size_px=64, fit="crop")


class Turns:
    """An installation with two models, of which the older one is live, and their indexes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bundles = {spec: make_bundle(home, spec) for spec in (OLD, NEW)}
        self.indexes = {spec: make_index(home, version, PHOTOS) for spec, version in self.bundles.items()}
        for spec in (NEW, OLD):
            self.promote(spec)

    def promote(self, spec: PreprocessSpec) -> None:
        bundle_store(self.home).promote(self.bundles[spec])
        index_store(self.home).promote(self.indexes[spec])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Turns:
    return Turns(tmp_path_factory.mktemp("made"))


@pytest.fixture
def turns(made: Turns, tmp_path: Path) -> Turns:
    turns = copy(made)
    turns.home = shutil.copytree(made.home, tmp_path / "home")
    return turns


@pytest.fixture
def engine(turns: Turns) -> Iterator[Engine]:
    engine = Engine(turns.home)
    engine.refresh()
    yield engine
    engine.close()


def answered_by(engine: Engine, turns: Turns, spec: PreprocessSpec, photo: int = 3) -> PreprocessSpec:
    """The spec of the model that answers; its answer is right."""
    result = engine.run(SearchRequest(k=1), decode_photo(PHOTOS[photo], spec).tobytes(), spec=spec)
    assert isinstance(result, SearchResult)
    assert (result.neighbours[0].image_id, round(result.neighbours[0].score, 4)) == (str(photo), 1)
    [answered] = [spec for spec, version in turns.indexes.items() if version == result.index_version]
    return answered


def test_a_photo_that_waited_while_models_changed_is_answered_by_the_one_it_was_made_for(
    turns: Turns, engine: Engine
) -> None:
    turns.promote(NEW)
    engine.refresh()
    assert answered_by(engine, turns, NEW) == NEW
    assert answered_by(engine, turns, OLD) == OLD


def test_a_worker_that_hears_of_a_promotion_from_a_photo_follows_at_once(turns: Turns, engine: Engine) -> None:
    turns.promote(NEW)
    assert answered_by(engine, turns, NEW) == NEW


def test_a_worker_started_after_the_change_answers_what_waited_before_it(turns: Turns) -> None:
    turns.promote(NEW)
    engine = Engine(turns.home)
    engine.refresh()
    assert [answered_by(engine, turns, spec) for spec in (OLD, NEW, OLD)] == [OLD, NEW, OLD]
    engine.close()


def test_what_answered_before_is_let_go_and_comes_back_when_it_is_needed(
    turns: Turns, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_OUTLIVED_S", -1.0)
    turns.promote(NEW)
    engine.refresh()
    engine.refresh()
    assert len(engine.live.models()) == 1
    assert answered_by(engine, turns, OLD) == OLD
    engine.refresh()
    assert len(engine.live.models()) == 1


def test_a_photo_for_no_model_there_ever_was_is_refused_in_words(engine: Engine) -> None:
    spec = PreprocessSpec(size_px=64, fit="stretch")
    with pytest.raises(PhotoExpired, match="stretch 64 px"):
        engine.run(SearchRequest(), bytes(spec.n_bytes), spec=spec)


def test_searches_go_on_while_models_of_two_specs_take_turns(turns: Turns, engine: Engine) -> None:
    stop, errors, met = threading.Event(), list[Exception](), set[PreprocessSpec]()

    def search(spec: PreprocessSpec) -> None:
        photo = 0
        while not stop.is_set():
            photo = (photo + 1) % len(PHOTOS)
            try:
                assert answered_by(engine, turns, spec, photo) == spec
                met.add(spec)
            except Exception as exc:
                errors.append(exc)

    threads = [threading.Thread(target=search, args=(spec,)) for spec in (OLD, NEW, OLD)]
    for thread in threads:
        thread.start()
    for spec in (NEW, OLD, NEW, OLD):
        turns.promote(spec)
        engine.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert met == {OLD, NEW}


def test_a_photo_put_live_is_found_by_models_of_every_spec(turns: Turns) -> None:
    photo = encode(noise_image(9, (1000, 600)))
    kept = keep_live_photo(turns.home, working_copy(open_photo(photo)))
    put = PutPhoto("l", 5, kept, "of another model", np.ones(7, np.float32), np.ones(13, np.float32))
    engine = Engine(turns.home, read_changes=lambda after: [Change("1-0", "new", 1, put)])
    for spec in (OLD, NEW):
        turns.promote(spec)
        engine.refresh()
        result = engine.run(SearchRequest(k=1), decode_photo(photo, spec).tobytes(), spec=spec)
        assert isinstance(result, SearchResult)
        assert result.neighbours[0].image_id == "new"
        assert result.neighbours[0].score > 0.98  # scaled twice
    engine.close()


def test_an_engine_that_is_closed_leaves_what_waits_to_others(turns: Turns, engine: Engine) -> None:
    turns.promote(NEW)
    engine.refresh()
    engine.close()
    for spec in (OLD, NEW):
        with pytest.raises(CancelledError):
            engine.run(SearchRequest(), bytes(spec.n_bytes), spec=spec)


@pytest.mark.parametrize("running", [True, False])
def test_a_promoted_model_without_an_index_leaves_the_answers_to_the_one_before(turns: Turns, running: bool) -> None:
    engine = Engine(turns.home)
    if running:
        engine.refresh()
    bundle_store(turns.home).promote(turns.bundles[NEW])
    engine.refresh()
    assert answered_by(engine, turns, OLD) == OLD
    assert "lookalike reindex" in str(engine.problem)
    assert turns.bundles[NEW] in str(engine.problem)
    coming, _ = engine.live.promoted()  # as a reindex does, which makes the index
    engine.refresh()
    assert engine.live.promoted_bundle(coming.version) is coming  # still in memory
    index_store(turns.home).promote(turns.indexes[NEW])
    engine.refresh()
    assert engine.problem is None
    assert answered_by(engine, turns, NEW) == NEW
    engine.close()


def test_the_front_door_takes_the_spec_of_the_model_that_answers(turns: Turns) -> None:
    clock = Clock()
    spec = ServingPreprocessing(turns.home, clock)
    assert spec.current() == OLD
    bundle_store(turns.home).promote(turns.bundles[NEW])
    clock.now += 1
    assert spec.current() == OLD  # the new one has no index yet
    index_store(turns.home).promote(turns.indexes[NEW])
    assert spec.current() == OLD  # it looks once a second
    clock.now += 1
    assert spec.current() == NEW
    (bundle_store(turns.home).root / "CURRENT").write_text("20260101T000000000000Z-00000000\n")
    (index_store(turns.home).path(turns.indexes[NEW]) / MANIFEST).unlink()
    clock.now += 1
    assert spec.current() == NEW  # what cannot be read changes nothing


def test_photos_are_not_made_by_a_guess_where_the_model_cannot_be_read_for_want_of_files(turns: Turns) -> None:
    spec = ServingPreprocessing(turns.home)
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        spec.current()
    assert spec.current() == OLD
    with no_more_files():
        assert spec.current() == OLD  # it is known


def test_without_an_installation_photos_are_made_as_by_default(tmp_path: Path) -> None:
    assert ServingPreprocessing(tmp_path).current() == PreprocessSpec()


def test_a_request_sent_again_after_the_spec_changed_is_the_same_request(
    turns: Turns, client: redis.Redis, valkey_url: str, reader: PhotoReader, jobs: JobStore
) -> None:
    app = application(settings(valkey_url, home=turns.home), reader)
    http = app.test_client()

    def submit(key: str) -> str:
        headers = {"Idempotency-Key": key}
        body = http.post("/v1/jobs/search", data={"image": (BytesIO(PHOTOS[0]), "a.jpg")}, headers=headers).get_json()
        return str(body["id"])

    first = submit("one")
    turns.promote(NEW)
    app.extensions["lookalike"]._preprocessing = ServingPreprocessing(turns.home)
    assert submit("one") == first
    submit("two")
    claims = [jobs.claim("w", lease_s=15) for _ in range(2)]
    made = [(claim.job.spec, claim.pixels) for claim in claims if claim]
    assert made == [(spec, decode_photo(PHOTOS[0], spec).tobytes()) for spec in (OLD, NEW)]
