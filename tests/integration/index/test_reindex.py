"""Reindexes by a worker's insides on a real Valkey, with the real network: what is embedded, built and promoted."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image, ImageOps

from shared.artifacts.snapshots import index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.changes.overrides import OVERRIDES
from shared.errors import PromotionRefused, ReindexRunning
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.celery_config import make_celery
from shared.jobs.contract import Job, JobKind, JobStatus
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.records import QueueName
from shared.jobs.reindex_contract import Promotion, ReindexMode, ReindexRequest, ReindexResult
from shared.jobs.store import JobStore
from shared.reindex.embedding_cache import EmbeddingCache
from tests.conftest import encode, noise_image
from tests.integration.conftest import PLENTY
from tests.support.installation import Installation
from tests.support.photo_host import answer, photo_host
from tests.support.runners import NamedJobs
from worker.jobs.reaper import Reaper
from worker.serving.engine import Engine
from worker.tasks.reindex import _Attempt


class Works:
    """A worker's insides over one installation; reindexes and shards are run from `start` on."""

    def __init__(self, installation: Installation, client: redis.Redis, url: str) -> None:
        self.installation = installation
        self.client = client
        self.url = url
        self.jobs = JobStore(client)
        self.indexes: ArtifactStore = index_store(installation.home)
        self.embedded: list[int] = []  # one entry a photo
        self.changed_settings: dict[str, object] = {}
        self._named_jobs: list[NamedJobs] = []
        self.dispatcher = Dispatcher(make_celery(url, socket_timeout_s=2), client)
        self._engines: list[Engine] = []

    def start(self) -> Engine:
        engine = Engine(self.installation.home)
        engine.refresh()
        embed = engine.embed

        def counted(*given: object, **named: object) -> object:
            self.embedded.append(1)
            return embed(*given, **named)  # type: ignore[arg-type]

        engine.embed = counted  # type: ignore[method-assign,assignment]
        settings = self.installation.settings(redis_url=self.url, **self.changed_settings)
        named_jobs = NamedJobs(settings, self.client, self.jobs, engine)
        named_jobs.start()
        self._named_jobs.append(named_jobs)
        self._engines.append(engine)
        return engine

    def stop(self) -> None:
        for named_jobs in self._named_jobs:
            named_jobs.stop()
        for engine in self._engines:
            engine.close()
        self._named_jobs.clear()
        self._engines.clear()

    def submit(self, **request: object) -> Job:
        job = self.jobs.create(
            JobKind.REINDEX, ReindexRequest.model_validate(request), None, admission=PLENTY, request_id="test"
        ).job
        self.dispatcher.dispatch(job)
        return job

    def reindex(self, **request: object) -> ReindexResult:
        """Run one to its end, which must be a good one."""
        job = self.jobs.wait(self.submit(**request), 60)
        assert job.status is JobStatus.SUCCEEDED, job.error
        assert isinstance(job.result, ReindexResult)
        return job.result

    def live(self) -> VectorIndex:
        version = self.indexes.current()
        assert version is not None
        return open_snapshot(self.indexes, fingerprint=read_index_manifest(self.indexes, version).fingerprint)


@pytest.fixture
def works(built: Installation, client: redis.Redis, valkey_url: str, tmp_path: Path) -> Iterator[Works]:
    works = Works(built.copy(tmp_path), client, valkey_url)
    yield works
    works.stop()


def mirror(photo: Path) -> None:
    with Image.open(photo) as image:
        ImageOps.mirror(image).save(photo, quality=95)


def test_a_catalogue_in_which_nothing_changed_costs_no_embedding_and_no_snapshot(works: Works) -> None:
    works.start()
    before = works.indexes.versions()
    for _ in range(2):
        result = works.reindex()
        assert (result.decision, result.index_version, result.promoted) == ("nothing has changed", None, False)
        assert result.counts.unchanged == result.counts.seen == 52
    assert (works.indexes.versions(), works.embedded) == (before, [])


def test_only_what_changed_is_embedded_and_the_rest_is_as_it_was(works: Works) -> None:
    installation = works.installation
    rows = installation.photo_rows()
    before = works.live()
    changed, removed, broken, twin = (rows[i]["id"] for i in (3, 10, 20, 30))
    mirror(installation.photo(changed))
    installation.photo(removed).unlink()
    installation.photo(broken).write_bytes(b"no photo at all")
    shutil.copyfile(installation.photo(rows[31]["id"]), installation.photo(twin))  # other pixels, but known ones
    installation.photo("new").write_bytes(encode(noise_image(1)))
    images = installation.catalogue / "Images.csv"
    images.write_text(images.read_text() + f"new,{rows[0]['product_id']}\n")
    works.start()
    result = works.reindex()
    assert (result.promoted, result.decision.partition(";")[0]) == (True, "every gate was passed")
    assert result.counts.model_dump() == {
        "seen": 52, "unchanged": 48, "new": 1, "changed": 3, "relabelled": 0, "removed": 1, "embedded": 2, "failed": 1,
    }  # fmt: skip
    assert result.reasons["photo cannot be used: unsupported_format"] == 1
    assert len(works.embedded) == 2
    after = works.live()
    assert after.version == result.index_version
    ids = [photo.image_id for photo in after.photos()]
    assert ids == [*(row["id"] for row in rows if row["id"] not in (removed, broken)), "new"]
    kept = [i for i in ids if i not in (changed, twin, "new")]
    then, now = (
        snapshot.vectors(np.array([snapshot.row_of(i) for i in kept], dtype=np.int64)) for snapshot in (before, after)
    )
    assert np.array_equal(then, now)
    assert after.stored(twin).vectors == pytest.approx(before.stored(rows[31]["id"]).vectors)
    assert not np.allclose(after.stored(changed).vectors, before.stored(changed).vectors, atol=1e-3)


def test_photos_by_url_are_fetched_once_and_asked_for_again_at_each_reindex(works: Works) -> None:
    installation = works.installation
    moved = [row["id"] for row in installation.photo_rows()[:3]]
    images = installation.catalogue / "Images.csv"
    with photo_host() as host:
        for name in moved:
            photo = installation.photo(name)
            host.photos[f"/{name}.jpg"] = photo.read_bytes()
            photo.unlink()
        header, *rows = images.read_text().splitlines()
        urls = {name: host.url(f"/{name}.jpg") for name in moved}
        images.write_text(
            "\n".join([f"{header},url", *(f"{row},{urls.get(row.split(',')[0], '')}" for row in rows), ""])
        )
        works.changed_settings = {"photo_hosts": host.name, "photo_allow_private": True}
        works.start()
        assert works.reindex().decision == "nothing has changed"  # the bytes are the same, wherever they come from
        assert sorted(path for path, _ in host.asked) == sorted(f"/{name}.jpg" for name in moved)
        host.photos[f"/{moved[0]}.jpg"] = encode(noise_image(1))
        del host.photos[f"/{moved[1]}.jpg"]
        host.photos[f"/{moved[2]}.jpg"] = answer(503)
        host.asked.clear()
        result = works.reindex()
    assert result.promoted
    assert (result.counts.changed, result.counts.removed, result.counts.embedded) == (1, 1, 1)
    assert result.reasons == {"photo cannot be fetched": 1}
    assert len(host.asked) == 3
    assert len(works.embedded) == 1


def test_another_category_or_listing_is_a_new_snapshot_and_no_embedding(works: Works) -> None:
    images = works.installation.catalogue / "Images.csv"
    rows = works.installation.photo_rows()
    own = rows[0]["product_id"]
    other = next(row["product_id"] for row in rows if row["product_id"] != own)
    images.write_text(images.read_text().replace(f"{rows[0]['id']},{own}", f"{rows[0]['id']},{other}"))
    works.start()
    result = works.reindex()
    assert (result.promoted, result.counts.relabelled, works.embedded) == (True, 1, [])
    row = works.live().row_of(rows[0]["id"])
    assert row is not None
    assert works.live().photo(row).listing_id == other


def test_a_dry_run_tells_and_changes_nothing(works: Works) -> None:
    mirror(works.installation.photo(works.installation.photo_rows()[0]["id"]))
    before = works.indexes.versions()
    works.start()
    result = works.reindex(dry_run=True)
    assert (result.dry_run, result.counts.changed, result.index_version) == (True, 1, None)
    assert (works.indexes.versions(), works.embedded) == (before, [])


def test_everything_is_embedded_anew_when_asked_for_and_gives_the_same(works: Works) -> None:
    before = works.live()
    works.start()
    result = works.reindex(mode="all")
    assert (result.counts.embedded, len(works.embedded)) == (52, 52)
    after = works.live()
    assert after.version != before.version
    rows = np.arange(len(before))
    # Batches of other sizes are summed up in another order.
    assert np.allclose(before.vectors(rows), after.vectors(rows), atol=1e-4)
    assert [p.image_id for p in before.photos()] == [p.image_id for p in after.photos()]
    report = read_index_manifest(works.indexes, after.version).report
    assert report is not None
    assert {gate.name for gate in report.gates} == {
        "self_retrieval", "recall_at_10", "count", "words", "listings", "distinct_vectors",
        "precision_at_4", "sibling_recall_at_4", "same_embeddings",
    }  # fmt: skip
    assert report.new.self_retrieval == 1
    assert not list((works.installation.home / "embeddings").rglob("*.npz"))


def test_a_catalogue_that_lost_a_fifth_is_not_promoted_unless_forced(works: Works) -> None:
    rows = works.installation.photo_rows()
    for row in rows[:11]:
        works.installation.photo(row["id"]).unlink()
    before = works.indexes.current()
    works.start()
    result = works.reindex()
    assert not result.promoted
    assert "count: 41 photos, 52 are live" in result.decision
    assert works.indexes.current() == before
    assert result.index_version in works.indexes.versions()  # to be looked at, or promoted by hand
    assert works.reindex(force=True).promoted
    assert len(works.live()) == 41


@pytest.mark.parametrize("promote", [Promotion.NEVER, Promotion.IF_VALID])
def test_listings_torn_apart_are_promoted_only_if_validity_is_enough(works: Works, promote: Promotion) -> None:
    rows = works.installation.photo_rows()
    listings = [row["product_id"] for row in rows]
    torn = zip(rows, listings[1:] + listings[:1], strict=True)
    lines = ["id,product_id", *(f"{row['id']},{listing}" for row, listing in torn)]
    (works.installation.catalogue / "Images.csv").write_text("\n".join(lines) + "\n")
    before = works.indexes.current()
    works.start()
    result = works.reindex()
    assert not result.promoted
    assert result.decision.startswith("sibling_recall_at_4: ")
    assert works.indexes.current() == before
    assert works.reindex(promote=promote).promoted == (promote is Promotion.IF_VALID)


def test_of_two_reindexes_at_once_the_second_is_told_of_the_first(works: Works) -> None:
    first = works.submit()
    with pytest.raises(ReindexRunning) as refused:
        works.submit(mode=ReindexMode.ALL)
    assert refused.value.job_id == first.id
    works.start()
    assert works.jobs.wait(first, 30).status is JobStatus.SUCCEEDED
    assert works.reindex().decision == "nothing has changed"


def test_a_cancelled_reindex_stops_embedding_and_a_later_one_goes_on_from_there(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.tasks.reindex.SHARD_PHOTOS", 4)
    engine = works.start()
    reached, embed = threading.Event(), engine.embed

    def slow(*given: object, **named: object) -> object:
        if len(works.embedded) >= 12:
            reached.set()
            cancelled.wait(10)
        return embed(*given, **named)  # type: ignore[arg-type]

    cancelled = threading.Event()
    engine.embed = slow  # type: ignore[method-assign,assignment]
    for row in works.installation.photo_rows():
        mirror(works.installation.photo(row["id"]))
    job = works.submit(promote=Promotion.IF_VALID)
    assert reached.wait(30)
    assert works.jobs.cancel(job.id).status is JobStatus.CANCELING
    cancelled.set()
    ended = works.jobs.wait(job, 10)
    assert ended.status is JobStatus.CANCELED
    assert ended.progress is not None
    assert (ended.progress.stage, ended.progress.total) == ("embedding", 52)
    assert len(works.embedded) < 40  # those in flight, and what was claimed until the word had spread
    assert len(works.indexes.versions()) == 1
    assert works.reindex(promote=Promotion.IF_VALID).promoted
    assert len(works.embedded) <= 52 + 2 * 4  # once each, but for the two shards that were left halfway


def test_an_attempt_that_was_overtaken_promotes_nothing(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt stands still before it promotes until its lease is over; the second does the work."""
    import worker.tasks.reindex as module

    stopped, go_on = threading.Event(), threading.Event()
    promote = module._Attempt._promote
    outcomes: list[tuple[bool, str]] = []

    def waiting(attempt: module._Attempt, *given: object) -> tuple[bool, str]:
        if attempt.job.attempt == 1:
            stopped.set()
            assert go_on.wait(30)
            try:
                outcomes.append(promote(attempt, *given))  # type: ignore[arg-type]
            except PromotionRefused as exc:
                outcomes.append((False, str(exc)))
            return outcomes[0]
        return promote(attempt, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(module._Attempt, "_promote", waiting)
    mirror(works.installation.photo(works.installation.photo_rows()[0]["id"]))
    works.start()
    job = works.submit()
    assert stopped.wait(30)
    works.client.zadd("lookalike:running", {job.id: 0})  # its lease is over
    Reaper(works.jobs, works.dispatcher, max_attempts=3, lease_s=15).reap()
    assert works.jobs.get(job.id).status is JobStatus.QUEUED
    works.start()  # another worker
    ended = works.jobs.wait(job, 30)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 2)
    promoted = [entry.version for entry in works.indexes.history()]
    go_on.set()
    works.stop()
    assert outcomes == [(False, "another has taken over, which will promote its own")] or outcomes[0][0] is True
    assert [entry.version for entry in works.indexes.history()] == promoted
    assert len(works.embedded) == 1


def test_an_index_whose_live_version_is_gone_is_made_anew(works: Works) -> None:
    shutil.rmtree(works.indexes.path(works.live().version))
    works.start()
    assert works.reindex().promoted
    assert len(works.live()) == len(works.embedded) == 52


def test_an_older_version_that_cannot_be_read_does_not_fail_a_reindex_that_went_live(works: Works) -> None:
    works.start()
    [first, *_] = works.indexes.versions()
    works.reindex(mode="all")
    overrides = works.indexes.path(first) / OVERRIDES
    overrides.unlink()
    overrides.mkdir()  # so that it cannot be read, whoever reads it
    result = works.reindex(mode="all")
    assert result.promoted
    assert works.indexes.current() == result.index_version


def test_a_damaged_shard_is_embedded_again(works: Works) -> None:
    works.start()
    fingerprint = works.live().manifest.fingerprint
    cache = EmbeddingCache(works.installation.home, fingerprint)
    path = works.installation.home / "embeddings" / fingerprint[:32] / "known" / "half.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK\x03\x04 and then the disk was full")
    mirror(works.installation.photo(works.installation.photo_rows()[0]["id"]))
    assert works.reindex().promoted
    assert len(works.embedded) == 1
    assert not cache.has("half")


@pytest.mark.parametrize("promote", [Promotion.IF_BETTER, Promotion.NEVER])
def test_a_photo_that_could_not_be_read_for_a_while_is_tried_again(
    works: Works, monkeypatch: pytest.MonkeyPatch, promote: Promotion
) -> None:
    """As when a volume was not mounted: afterwards not one file shows that it was away."""
    image_id = works.installation.photo_rows()[0]["id"]
    photo = works.installation.photo(image_id)
    mirror(photo)
    os.utime(photo, (time.time() - 60,) * 2)  # it has not been written just now, so that its time is trusted
    away = photo.with_suffix(".away")
    embed = _Attempt._embed

    def embed_without(attempt: _Attempt, *given: object) -> set[str]:
        photo.rename(away)
        try:
            return embed(attempt, *given)  # type: ignore[arg-type]
        finally:
            away.rename(photo)

    works.start()
    with monkeypatch.context() as patch:
        patch.setattr(_Attempt, "_embed", embed_without)
        assert works.reindex(promote=promote).counts.failed == 1
    assert works.reindex().promoted
    assert works.live().row_of(image_id) is not None


def test_what_a_refused_snapshot_cost_is_not_spent_again(works: Works) -> None:
    rows = works.installation.photo_rows()
    for row in rows[:11]:
        works.installation.photo(row["id"]).unlink()
    mirror(works.installation.photo(rows[20]["id"]))
    works.start()
    assert not works.reindex().promoted
    assert works.reindex(force=True).promoted
    assert len(works.embedded) == 1
    assert not list((works.installation.home / "embeddings").rglob("*.npz"))


def test_a_worker_that_stops_hands_its_reindex_to_another(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.tasks.reindex.SHARD_PHOTOS", 4)
    for row in works.installation.photo_rows():
        mirror(works.installation.photo(row["id"]))
    works.start()
    job = works.submit(promote=Promotion.IF_VALID)
    while len(works.embedded) < 8:
        threading.Event().wait(0.005)
    works.stop()
    handed = works.jobs.get(job.id)
    assert handed.status is JobStatus.QUEUED
    assert works.jobs.backlog().queued[QueueName.REINDEX] == 1
    works.start()
    ended = works.jobs.wait(job, 60)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 2)
    assert len(works.embedded) <= 52 + 2 * 4
