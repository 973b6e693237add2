"""Duplicates jobs over a real index, files and Valkey: what is found, what people decided, and what a put is told"""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import numpy as np
import pytest
import redis
from PIL import Image

from shared.artifacts.home import keep_live_photo
from shared.artifacts.snapshots import index_store
from shared.catalogue.categories import CATEGORIES, CataloguePhoto
from shared.changes.log import Change, PutPhoto
from shared.duplicates.report import read_report
from shared.duplicates.verdicts import VerdictStore
from shared.errors import VersionNotFound
from shared.index.delta.index import DeltaIndex
from shared.index.snapshot import open_snapshot
from shared.jobs.celery_config import make_celery
from shared.jobs.contract import JobKind, PutImageRequest
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.duplicates_contract import GROUPS_A_PAGE, DuplicatesRequest, DuplicatesResult, Verdict
from shared.jobs.reindex_jobs import ReindexStore
from shared.jobs.store import JobStore
from shared.model.embedder import Embeddings
from shared.settings import Settings
from tests.integration.conftest import PLENTY
from tests.support.copies import COPIES, jpeg, scene
from tests.support.snapshots import write_snapshot
from worker.jobs.leases import Leases
from worker.serving.engine import Engine
from worker.tasks.duplicates import DuplicateFinder

DIM = 32
RNG = np.random.default_rng(17)
CROPPED = jpeg(COPIES["cropped"](scene(1), RNG))


def vector(seed: int, *, like: int | None = None) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A unit vector; one that is like another is .9 similar to it."""
    drawn = np.random.default_rng(seed).standard_normal(DIM)
    drawn /= np.linalg.norm(drawn)
    if like is not None:
        other = vector(like)
        away = drawn - (drawn @ other) * other
        drawn = 0.9 * other + np.sqrt(1 - 0.81) * away / np.linalg.norm(away)
    return drawn.astype(np.float32)


# Image, listing, file, embedding. The photos of listing a are the same file, and no duplicates of one another.
PHOTOS = [
    ("a1", "a", jpeg(scene(1)), vector(1)),
    ("a2", "a", jpeg(scene(1)), vector(1)),
    ("twin", "b", jpeg(scene(1)), vector(1)),
    ("crop", "c", CROPPED, vector(11, like=1)),
    ("other", "d", jpeg(scene(2)), vector(12, like=1)),  # similar, and not the same picture
    ("alone", "e", jpeg(scene(3)), vector(3)),
]
PUT = PutImageRequest(image_id="put", listing_id="f", category=CATEGORIES[0])


class Installation:
    """An index with files, a worker's finder on it, and duplicates jobs that are run at once."""

    def __init__(self, directory: Path, client: redis.Redis, url: str) -> None:
        self.home, self.catalogue = directory / "home", directory / "catalogue"
        self.catalogue.mkdir()
        given = {"home": self.home, "catalogue": self.catalogue, "redis_url": url}
        settings = Settings.model_validate(given)
        self.jobs = JobStore(client)
        self.verdicts = VerdictStore(client)
        store = ReindexStore(client, self.jobs, Dispatcher(make_celery(url), client))
        self.index: DeltaIndex
        answering = SimpleNamespace(answering=lambda spec: SimpleNamespace(index=self.index))
        engine = cast(Engine, SimpleNamespace(live=answering))
        self.finder = DuplicateFinder(settings, client, store, engine, stopping=lambda: False)

    def build(self, photos: list[tuple[str, str, bytes, np.ndarray[tuple[int], np.dtype[np.float32]]]]) -> str:
        rows = []
        for image_id, listing_id, content, _ in photos:
            (self.catalogue / f"{image_id}.jpg").write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            rows.append(CataloguePhoto(image_id, listing_id, 0, self.catalogue / f"{image_id}.jpg", sha256))
        vectors = np.stack([one for *_, one in photos])
        version = write_snapshot(
            index_store(self.home),
            rows,
            Embeddings(vectors, np.zeros((len(photos), len(CATEGORIES)), np.float32)),
            fingerprint="f",
            catalogue="c",
            catalogue_digest="d",
            root=self.catalogue,
        )
        self.index = DeltaIndex(open_snapshot(index_store(self.home), fingerprint="f", version=version), lambda _: None)
        return version

    def find(self, **options: object) -> DuplicatesResult:
        request = DuplicatesRequest.model_validate(options)
        job = self.jobs.create(JobKind.DUPLICATES, request, None, admission=PLENTY).job
        claim = self.jobs.claim_job(job.id, "w", lease_s=15)
        assert claim
        with Leases().holding(claim.job) as lease:
            result = self.finder.run(claim, lease)
        self.job_id = job.id
        self.jobs.succeed(claim.job, result)
        assert self.jobs.get(job.id).result == result  # it can be read back
        return result

    def decide(self, verdict: Verdict | None, *image_ids: str) -> None:
        live = {photo.image_id: photo.sha256 for photo in self.index.live_photos().photos}
        self.verdicts.give({image_id: live[image_id] for image_id in image_ids}, verdict)


@pytest.fixture
def installation(tmp_path: Path, client: redis.Redis, valkey_url: str) -> Installation:
    made = Installation(tmp_path, client, valkey_url)
    made.build(PHOTOS)
    return made


def groups(result: DuplicatesResult) -> list[tuple[str, list[str]]]:
    return [(group.label, [image.image_id for image in group.images]) for group in result.groups]


def put(change: Callable[[Image.Image], Image.Image], home: Path) -> tuple[PutPhoto, bytes]:
    file = io.BytesIO()
    change(scene(1)).save(file, "PNG")
    sha256 = keep_live_photo(home, file.getvalue())
    nothing = np.zeros(len(CATEGORIES), np.float32)
    return PutPhoto("f", 0, sha256, "f", vector(20, like=1), nothing), file.getvalue()


def test_copies_across_listings_are_grouped_with_their_evidence(installation: Installation) -> None:
    result = installation.find()
    assert groups(result) == [
        ("same_picture", ["a1", "a2", "crop", "twin"]),
        ("same_thing", ["a1", "a2", "other", "twin"]),
    ]
    pairs = {pair.image_ids: pair for pair in result.groups[0].pairs}
    assert ("a1", "a2") not in pairs
    assert pairs["a1", "twin"].label == "same_bytes"
    crop = pairs["a1", "crop"]
    assert (crop.label.value, crop.mirrored) == ("same_picture", False)
    assert crop.score == pytest.approx(0.9, abs=1e-5)
    assert crop.correlation is not None
    assert crop.correlation > 0.9
    assert (result.n_photos, result.n_unreadable, result.n_groups, result.next_cursor) == (6, 0, 2, None)
    assert groups(installation.find(same_thing_score=0.95)) == groups(result)[:1]


def test_a_verdict_outlives_reindexes_and_ends_with_the_photo_it_is_of(installation: Installation) -> None:
    installation.decide(Verdict.NOT_DUPLICATE, "a1", "a2", "twin", "other")
    assert groups(installation.find()) == [("same_picture", ["a1", "a2", "crop", "twin"])]
    installation.decide(Verdict.NOT_DUPLICATE, "a1", "a2", "twin", "crop")
    installation.decide(Verdict.DUPLICATE, "alone", "other")
    installation.build(PHOTOS[::-1])
    result = installation.find()
    assert groups(result) == [("same_thing", ["alone", "other"])]
    assert result.groups[0].pairs[0].verdict is Verdict.DUPLICATE
    assert result.n_refuted == 8
    replaced = [photo if photo[0] != "twin" else ("twin", "b", CROPPED, vector(11, like=1)) for photo in PHOTOS]
    installation.build(replaced)
    assert groups(installation.find())[0] == ("same_picture", ["a1", "a2", "crop", "twin"])
    installation.decide(None, "alone", "other")
    assert ("same_thing", ["alone", "other"]) not in groups(installation.find())


def test_since_a_version_only_what_is_new_in_it_is_told(installation: Installation) -> None:
    before = installation.build(PHOTOS[:4])
    installation.build([*PHOTOS, ("late", "g", jpeg(scene(3), 40), vector(21, like=3))])
    assert groups(installation.find(since=before)) == [
        ("same_picture", ["alone", "late"]),
        ("same_thing", ["a1", "a2", "other", "twin"]),
    ]
    with pytest.raises(VersionNotFound, match="no version 'x'"):
        installation.find(since="x")


def test_pending_changes_count_and_a_photo_without_its_file_is_told(installation: Installation) -> None:
    photo, _ = put(lambda image: COPIES["mirrored"](image, RNG), installation.home)
    (installation.catalogue / "crop.jpg").unlink()
    changes = [Change("1-1", "put", 1, photo), Change("1-2", "twin", 2, None)]
    installation.index.apply(changes)
    result = installation.find()
    assert ("same_picture", ["a1", "a2", "put"]) in groups(result)
    assert result.groups[0].pairs[0].mirrored
    assert (result.n_photos, result.n_unreadable) == (6, 1)


def test_a_photo_put_often_does_not_keep_others_that_were_put_from_being_found(installation: Installation) -> None:
    installation.build(PHOTOS[-1:])
    entries = []
    for sequence, (image_id, listing_id) in enumerate([*[("again", "g")] * 15, ("copy", "h")], start=1):
        content = jpeg(scene(5), quality=95 if image_id == "again" else 60)
        sha256 = keep_live_photo(installation.home, content)
        embedding = vector(5) if image_id == "again" else vector(6, like=5)
        photo = PutPhoto(listing_id, 0, sha256, "f", embedding, np.zeros(len(CATEGORIES), np.float32))
        entries.append(Change(f"{sequence}-0", image_id, sequence, photo))
    installation.index.apply(entries)
    assert groups(installation.find()) == [("same_picture", ["again", "copy"])]


def test_photos_that_were_deleted_do_not_keep_others_from_being_found(installation: Installation) -> None:
    gone = [(f"gone{i}", f"g{i}", jpeg(scene(5)), vector(5)) for i in range(20)]
    left = [("one", "h", jpeg(scene(5), 80), vector(5)), ("other", "i", jpeg(scene(5), 60), vector(6, like=5))]
    installation.build([*gone, *left])
    installation.index.apply([Change(f"{i}-0", name, i, None) for i, (name, *_) in enumerate(gone, start=1)])
    assert groups(installation.find()) == [("same_picture", ["one", "other"])]


def test_many_groups_are_paged(installation: Installation) -> None:
    n = GROUPS_A_PAGE + 3
    contents = [jpeg(scene(100 + i, (32, 24))) for i in range(n)]
    photos = [(f"{i:02}{side}", f"{side}{i}", contents[i], vector(100 + i)) for i in range(n) for side in "xy"]
    installation.build(photos)
    result = installation.find(same_thing_score=1)
    assert (len(result.groups), result.n_groups, result.next_cursor) == (GROUPS_A_PAGE, n, "1")
    assert len(read_report(installation.home, installation.job_id, 1)) == 3


def test_a_put_is_told_what_it_duplicates_and_nothing_of_its_own_listing(installation: Installation) -> None:
    photo, file = put(lambda image: COPIES["watermarked"](image, RNG), installation.home)
    found = installation.finder.of_put(PUT, photo, file)
    assert found is not None
    assert [(one.image_id, one.label) for one in found[:3]] == [
        ("a1", "same_picture"),
        ("a2", "same_picture"),
        ("twin", "same_picture"),
    ]
    assert found[0].hash_distance is not None
    own = PUT.model_copy(update={"listing_id": "a"})
    told = [one.image_id for one in installation.finder.of_put(own, photo, file) or []]
    assert told[0] == "twin"
    assert not {"a1", "a2"} & {*told}
    elsewhere = PutPhoto("f", 0, photo.sha256, "another model", photo.vector, photo.scores)
    assert installation.finder.of_put(PUT, elsewhere, file) is None
    installation.verdicts.give(
        {"put": photo.sha256, "a1": hashlib.sha256(PHOTOS[0][2]).hexdigest()}, Verdict.NOT_DUPLICATE
    )
    assert [one.image_id for one in installation.finder.of_put(PUT, photo, file) or []][:2] == ["a2", "twin"]


def test_looks_are_computed_once_and_a_damaged_cache_is_made_anew(installation: Installation) -> None:
    first = groups(installation.find())
    for path in installation.catalogue.glob("*.jpg"):
        path.unlink()
    assert installation.find().n_unreadable == 0  # all are known
    cache = installation.home / "looks.sqlite"
    for path in installation.home.glob("looks.sqlite*"):
        path.unlink()
    cache.write_bytes(b"no database at all" * 100)
    installation.build(PHOTOS)
    assert groups(installation.find()) == first
    cache.unlink()
    cache.mkdir()
    photo, file = put(lambda image: image, installation.home)
    assert installation.finder.of_put(PUT, photo, file) is None  # and the put is not refused


def test_photos_for_which_no_more_files_may_be_opened_are_not_told_to_be_unreadable(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, file = put(lambda image: image, installation.home)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", Mock(side_effect=OSError(errno.EMFILE, os.strerror(errno.EMFILE))))
        with pytest.raises(OSError, match="Too many open files"):
            installation.find()
        assert installation.finder.of_put(PUT, photo, file) is None  # and the put is not refused
    assert groups(installation.find())
