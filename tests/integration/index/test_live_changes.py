"""Live changes in a worker with real model, index and Valkey: carried out once, seen at once, and lost by no swap"""

import base64
import errno
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import redis

from shared.artifacts.home import keep_live_photo, live_photo
from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, ChangeLog, PutPhoto
from shared.errors import ArtifactUnwritable, ImageNotFound, QueueUnavailable
from shared.index.delta.index import DeltaIndex
from shared.index.snapshot import open_snapshot
from shared.jobs.answers_contract import SearchResult
from shared.jobs.contract import (
    DeleteImageRequest,
    ImageChangeResult,
    Job,
    JobKind,
    JobStatus,
    PutImageRequest,
    SearchRequest,
)
from shared.jobs.store import JobStore
from shared.model.bundle import bundle_store, open_bundle
from shared.model.embedder import Embeddings
from shared.photos.images import PreprocessSpec, decode_photo
from shared.redis_client import connect
from shared.settings import Settings
from tests.integration.api.test_api import EMBEDDED
from tests.integration.conftest import PLENTY, eventually
from tests.support.installation import Installation
from tests.support.once import small_catalogue
from tests.support.runners import FakeEngine
from tests.support.snapshots import write_snapshot
from worker.jobs.leases import Leases
from worker.jobs.runner import JobRunner
from worker.serving.engine import Engine
from worker.serving.followed_log import STALE_S
from worker.tasks.images import ChangeFollower, ChangeWriter, as_png, read_changes

SIDE = 224
CATEGORY = CATEGORIES[5]


def noise(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8).tobytes()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("live") / "home"
    Installation(home, small_catalogue(tmp_path_factory, 13)).prepare()
    return home


@pytest.fixture
def home(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def log(client: redis.Redis) -> ChangeLog:
    return ChangeLog(client)


@pytest.fixture
def engine(home: Path, log: ChangeLog, valkey_url: str) -> Iterator[Engine]:
    """An engine that follows the log."""
    engine = Engine(home, read_changes=partial(read_changes, log))
    engine.refresh()
    following = connect(valkey_url)
    follower = ChangeFollower(ChangeLog(following), engine)
    follower.start()
    yield engine
    follower.stop()
    following.close()
    engine.close()


def settings_of(home: Path) -> Settings:
    return Settings.model_validate({"home": home})


def runner(jobs: JobStore, log: ChangeLog, engine: Engine, home: Path) -> JobRunner:
    change = ChangeWriter(log, engine, settings_of(home), lambda *given: None).run
    handlers = {JobKind.PUT_IMAGE: change, JobKind.DELETE_IMAGE: change}
    return JobRunner(jobs, engine, Leases(), worker="w", lease_s=15, handlers=handlers)


def submit(jobs: JobStore, log: ChangeLog, image_id: str, pixels: bytes | None) -> Job:
    """A put of these pixels, or a delete."""
    sequence = log.next_sequence()
    put = PutImageRequest(image_id=image_id, listing_id="l", category=CATEGORY, sequence=sequence)
    delete = DeleteImageRequest(image_id=image_id, sequence=sequence)
    kind, request = (JobKind.PUT_IMAGE, put) if pixels else (JobKind.DELETE_IMAGE, delete)
    return jobs.create(kind, request, pixels, admission=PLENTY)[0]


def nearest(engine: Engine, pixels: bytes) -> tuple[str, float, str]:
    """Image, score and category of the first neighbour."""
    result = engine.run(SearchRequest(k=1), pixels)
    assert isinstance(result, SearchResult)
    [first] = result.neighbours
    return first.image_id, first.score, first.category


def eventually_nearest(engine: Engine, pixels: bytes, image_id: str, *, is_nearest: bool = True) -> None:
    eventually(lambda: (nearest(engine, pixels)[0] == image_id) is is_nearest)


def eventually_of(index: DeltaIndex, image_id: str, listing_id: str) -> None:
    eventually(lambda: (photo := index.photo_of(image_id)) is not None and photo.listing_id == listing_id)


def test_a_photo_put_live_is_found_and_a_deleted_one_no_more(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    pixels = noise(1)
    run = runner(jobs, log, engine, home).run_queued
    put = submit(jobs, log, "new", pixels)
    run()
    eventually_nearest(engine, pixels, "new")
    image_id, score, category = nearest(engine, pixels)
    assert (image_id, category) == ("new", CATEGORY)
    assert score == pytest.approx(1, abs=1e-5)
    done = jobs.get(put.id)
    assert done.status is JobStatus.SUCCEEDED
    assert isinstance(done.result, ImageChangeResult)
    assert [entry.entry_id for entry in log.read()] == [done.result.change_id]
    by_id = engine.run(SearchRequest(image_id="new", k=1), None)
    assert isinstance(by_id, SearchResult)
    assert by_id.neighbours[0].image_id == "new"
    info = engine.info()
    assert info
    assert info.changed == 1

    submit(jobs, log, "new", None)
    run()
    eventually_nearest(engine, pixels, "new", is_nearest=False)
    with pytest.raises(ImageNotFound):
        engine.run(SearchRequest(image_id="new"), None)


def test_where_redis_has_lost_changes_every_worker_says_so_and_sees_what_is_left(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = noise(1), noise(2), noise(3)
    works = runner(jobs, log, engine, home)

    def put(image_id: str, pixels: bytes) -> None:
        submit(jobs, log, image_id, pixels)
        assert works.run_waiting()

    put("one", one)
    backup = client.dump("lookalike:changes") or b""
    put("two", two)
    assert nearest(engine, two)[0] == "two"
    assert "changes_lost" not in caplog.text
    client.restore("lookalike:changes", 0, backup, replace=True)
    eventually_nearest(engine, two, "two", is_nearest=False)
    assert nearest(engine, one)[0] == "one"
    assert "event=changes_lost" in caplog.text
    assert "before=2 now=1" in caplog.text
    client.delete("lookalike:changes")
    eventually_nearest(engine, one, "one", is_nearest=False)
    put("three", three)
    assert nearest(engine, three)[0] == "three"
    assert caplog.text.count("event=changes_lost") == 2


def test_what_is_said_of_a_photo_changes_without_the_photo_and_nothing_is_embedded(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    live = engine.live.current
    assert live is not None
    before = live.index.snapshot.photo(0)
    stored = live.index.stored(before.image_id).vectors[0]
    for turn, image_id in enumerate((before.image_id, before.image_id, "nobody")):
        request = PutImageRequest(
            image_id=image_id, listing_id=f"l{turn}", category=CATEGORY, sequence=log.next_sequence(),
            attributes={"title": f"said {turn}"}, without_photo=True,
        )  # fmt: skip
        job = jobs.create(JobKind.PUT_IMAGE, request, None, admission=PLENTY)[0]
        runner(jobs, log, engine, home).run_queued()
        done = jobs.get(job.id)
        if image_id == "nobody":
            assert done.error is not None
            assert done.error.code == "image_not_found"
            assert "send the photo itself" in done.error.detail
            break
        assert done.status is JobStatus.SUCCEEDED, done.error
        *_, entry = log.read()
        assert entry.photo is not None
        np.testing.assert_array_equal(entry.photo.vector, stored)
        assert entry.photo.sha256 == before.sha256
        assert (entry.photo.listing_id, entry.photo.payload) == (f"l{turn}", f'{{"title":"said {turn}"}}')
        eventually_of(live.index, image_id, f"l{turn}")
    assert engine.stats().batch_sizes == {}


def test_a_photo_that_cannot_be_read_for_want_of_open_files_is_not_told_to_be_gone(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.live.current is not None
    known = engine.live.current.index.snapshot.photo(0)
    request = PutImageRequest(
        image_id=known.image_id, listing_id="l", category=CATEGORY, sequence=log.next_sequence(), without_photo=True
    )
    job = jobs.create(JobKind.PUT_IMAGE, request, None, admission=PLENTY)[0]
    file = Mock(read_bytes=Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
    monkeypatch.setattr("worker.tasks.images.indexed_photo", lambda *given: file)
    runner(jobs, log, engine, home).run_queued()
    done = jobs.get(job.id)
    assert done.error is not None
    assert done.error.code == "internal_error"
    assert list(log.read()) == []


def test_the_worker_that_changes_a_photo_finds_it_so_before_the_job_has_ended(
    jobs: JobStore, log: ChangeLog, home: Path
) -> None:
    engine = Engine(home, read_changes=partial(read_changes, log))  # which nothing else has follow the log
    engine.refresh()
    for pixels in (noise(8), None):
        submit(jobs, log, "new", pixels)
        runner(jobs, log, engine, home).run_queued()
        assert (nearest(engine, noise(8))[0] == "new") is (pixels is not None)
    engine.close()


def test_a_search_sees_what_another_worker_changed_a_while_ago_though_nobody_follows_the_log(
    jobs: JobStore, log: ChangeLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process stood still, or its follower waits for a Redis that has died."""
    away_for = 0  # so many tries

    def read(after: str) -> Iterable[Change]:
        nonlocal away_for
        if away_for:
            away_for -= 1
            raise QueueUnavailable("the job queue cannot be reached", retry_after_s=1)
        return read_changes(log, after)

    with closing(Engine(home, read_changes=read)) as engine, closing(Engine(home)) as other:
        engine.refresh()
        other.refresh()
        submit(jobs, log, "new", noise(8))
        runner(jobs, log, other, home).run_queued()
        time.sleep(STALE_S)
        with monkeypatch.context() as patched:
            patched.setattr("worker.serving.followed_log._CATCH_UP_S", 0.05)
            away_for = 1000
            assert nearest(engine, noise(8))[0] != "new"
        away_for = 3  # a failover: a search that waits for Redis to write its result knows what came before
        assert nearest(engine, noise(8))[0] == "new"
        assert away_for == 0


def test_a_change_that_went_to_a_primary_which_was_taken_for_dead_is_made_again(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    """As a failover ends, one connection leads there, and the next to the one that took over, with the job alone."""
    change = ChangeWriter(log, engine, settings_of(home), lambda *given: None)
    for pixels in (noise(1), None):
        job = submit(jobs, log, "a", pixels)
        taken = jobs.claim("w", lease_s=15)
        assert taken
        elsewhere = ImageChangeResult(image_id="a", change_id="1-1")
        assert jobs.succeed(taken.job, elsewhere) is None
        assert jobs.get(job.id).status is JobStatus.RUNNING
        with Leases().holding(taken.job) as lease:  # as the next attempt does
            made = change.run(taken, lease)
        assert jobs.succeed(taken.job, made) is JobStatus.SUCCEEDED
    assert len(list(log.read())) == 2


def test_jobs_run_in_the_wrong_order_leave_what_was_accepted_last(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    change = ChangeWriter(log, engine, settings_of(home), lambda *given: None)
    first, second = submit(jobs, log, "a", noise(1)), submit(jobs, log, "a", noise(2))
    claims = {claim.job.id: claim for _ in range(2) if (claim := jobs.claim("w", lease_s=15))}
    with Leases().holding(first) as lease:
        late = change.run(claims[second.id], lease)
        early = change.run(claims[first.id], lease)
        assert change.run(claims[second.id], lease) == late
    assert [late.change_id, early.change_id] == [*(entry.entry_id for entry in log.read()), None]
    eventually_nearest(engine, noise(2), "a")
    assert nearest(engine, noise(1))[1] < 0.9999


def test_a_job_that_is_cancelled_while_it_runs_changes_nothing(jobs: JobStore, log: ChangeLog, tmp_path: Path) -> None:
    job = submit(jobs, log, "a", noise(1))

    def answer_late() -> object:
        jobs.cancel(job.id)
        return EMBEDDED.model_copy(update={"embedding": base64.b64encode(bytes(4)).decode()})

    runner(jobs, log, FakeEngine(answer_late), tmp_path).run_queued()  # type: ignore[arg-type]
    assert jobs.get(job.id).status is JobStatus.CANCELED
    assert list(log.read()) == []


def test_a_kept_photo_gives_the_very_same_pixels_again(tmp_path: Path) -> None:
    bars = np.zeros((SIDE, SIDE, 3), np.uint8)
    bars[40:-40] = np.frombuffer(noise(1), np.uint8).reshape(SIDE, SIDE, 3)[40:-40]
    for pixels in (noise(2), bars.tobytes(), bytes(3 * SIDE**2)):
        sha256 = keep_live_photo(tmp_path, as_png(pixels))
        assert decode_photo(live_photo(tmp_path, sha256).read_bytes(), PreprocessSpec()).tobytes() == pixels
        assert keep_live_photo(tmp_path, as_png(pixels)) == sha256
    assert not list(tmp_path.rglob(".*"))


def test_a_photo_that_cannot_be_kept_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("in the way")
    with pytest.raises(ArtifactUnwritable, match="make room"):
        keep_live_photo(tmp_path, as_png(noise(1)))


def test_a_photo_of_an_earlier_model_is_embedded_again_by_the_live_one(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    photo = PutPhoto(
        "l", 5, keep_live_photo(home, as_png(noise(3))), "another", np.ones(7, np.float32), np.ones(13, np.float32)
    )
    job = submit(jobs, log, "old", None)
    claim = jobs.claim("w", lease_s=15)
    assert claim
    log.append(claim.job, "old", 1, photo)
    eventually_nearest(engine, noise(3), "old")
    assert job.id == claim.job.id


def test_no_search_misses_a_live_photo_while_snapshots_with_and_without_it_take_turns(
    jobs: JobStore, log: ChangeLog, engine: Engine, home: Path
) -> None:
    pixels = noise(4)
    submit(jobs, log, "new", pixels)
    runner(jobs, log, engine, home).run_queued()
    eventually_nearest(engine, pixels, "new")
    store = index_store(home)
    [change] = log.read()
    assert change.photo
    fingerprint = open_bundle(bundle_store(home)).manifest.fingerprint
    without = str(store.current())
    live = open_snapshot(store, fingerprint=fingerprint)
    photos = [*live.photos(), CataloguePhoto("new", "l", 5, Path("new.png"), change.photo.sha256)]
    vectors = np.concatenate([live.vectors(slice(None)), change.photo.vector[None]])
    scores = np.concatenate([live.scores(slice(None)), change.photo.scores[None]])
    compacted = write_snapshot(
        store,
        photos,
        Embeddings(vectors, scores),
        fingerprint=fingerprint,
        catalogue="c",
        catalogue_digest="d",
        compacted_through=change.entry_id,
    )
    stop = threading.Event()
    met: set[str] = set()
    missed: list[SearchResult] = []

    def search() -> None:
        while not stop.is_set():
            result = engine.run(SearchRequest(k=2), pixels)
            assert isinstance(result, SearchResult)
            met.add(result.index_version)
            if [n.image_id for n in result.neighbours].count("new") != 1 or result.neighbours[0].image_id != "new":
                missed.append(result)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        store.promote([compacted, without][turn % 2])
        engine.refresh()
        assert engine.live.log.applied_to == change.entry_id
    stop.set()
    for thread in threads:
        thread.join()
    assert missed == []
    assert met == {compacted, without}


def test_a_worker_is_not_ready_before_it_has_read_the_whole_log(home: Path) -> None:
    answers: list[type[Exception] | None] = [QueueUnavailable, None, QueueUnavailable]

    def read(after: str) -> Iterable[Change]:
        if answers and answers.pop(0):
            raise QueueUnavailable("the job queue cannot be reached", retry_after_s=1)
        return ()

    engine = Engine(home, read_changes=read)
    for _ in range(2):  # the second time between the first reading and the swap
        engine.refresh()
        assert not engine.ready
        assert "cannot be reached" in str(engine.problem)
    engine.refresh()
    assert engine.ready
    assert engine.problem is None
    engine.close()
