"""A reindex makes live changes part of the snapshot: none is embedded again, none is lost, and the log is cut"""

import os
import shutil
import time

import pytest
import redis

from shared.artifacts.home import keep_live_photo, live_photo, sweep_live_photos
from shared.changes.log import ChangeLog, PutPhoto
from shared.changes.overrides import read_overrides
from shared.jobs.contract import DeleteImageRequest, JobKind, Priority, Submission
from shared.jobs.reindex_contract import Promotion
from shared.model.embedder import Embeddings
from tests.integration.conftest import PLENTY
from tests.integration.index.test_live_changes import noise
from tests.integration.index.test_reindex import Works, mirror, works
from tests.support.snapshots import write_snapshot
from worker.tasks.images import as_png

__all__ = ["works"]


@pytest.fixture
def log(client: redis.Redis) -> ChangeLog:
    return ChangeLog(client)


def change(works: Works, log: ChangeLog, image_id: str, photo: PutPhoto | None) -> str:
    """What a job of that kind writes to the log."""
    submission = Submission(priority=Priority.BULK)
    request = DeleteImageRequest(image_id=image_id)
    works.jobs.create(JobKind.DELETE_IMAGE, request, None, admission=PLENTY, submission=submission)
    claim = works.jobs.claim("test", lease_s=15)
    assert claim
    entry = log.append(claim.job, image_id, log.next_sequence(), photo)
    assert entry
    return entry


def put(works: Works, seed: int) -> PutPhoto:
    """A photo that the live model has embedded, as something that no pass through it would give."""
    live = works.live()
    vectors = -live.vectors(slice(0, 1))[0]
    sha256 = keep_live_photo(works.installation.home, as_png(noise(seed)))
    return PutPhoto("l", 3, sha256, live.manifest.fingerprint, vectors, live.scores(slice(0, 1))[0])


def test_what_was_put_and_deleted_is_in_the_next_snapshot_and_the_next_but_one(works: Works, log: ChangeLog) -> None:
    rows = works.installation.photo_rows()
    photo = put(works, 1)
    change(works, log, "new", photo)
    last = change(works, log, rows[3]["id"], None)
    works.start()
    result = works.reindex()
    assert (result.promoted, result.counts.new, result.counts.removed, works.embedded) == (True, 1, 1, [])
    live = works.live()
    assert (live.manifest.compacted_through, log.count_after(live.manifest.compacted_through)) == (last, 0)
    assert live.stored("new").vectors.tolist() == [photo.vector.tolist()]
    assert live.row_of(rows[3]["id"]) is None

    assert works.reindex().decision == "nothing has changed"
    mirror(works.installation.photo(rows[3]["id"]))
    works.reindex()
    assert works.live().row_of(rows[3]["id"]) is not None
    assert works.live().row_of("new") is not None
    assert set(read_overrides(works.indexes.path(works.live().version))) == {"new"}


def test_changes_that_come_to_nothing_leave_the_log_as_well(works: Works, log: ChangeLog) -> None:
    change(works, log, "new", put(works, 1))
    change(works, log, "new", None)
    works.start()
    result = works.reindex()
    assert (result.promoted, result.counts.unchanged, works.embedded) == (True, 52, [])
    assert log.count_after(works.live().manifest.compacted_through) == 0


def test_where_everything_was_deleted_that_is_said_and_one_photo_put_is_enough(works: Works, log: ChangeLog) -> None:
    for row in works.installation.photo_rows():
        change(works, log, row["id"], None)
    works.start()
    job = works.jobs.wait(works.submit(force=True), 60)
    assert job.error
    assert (job.error.code, "has been deleted; put some" in job.error.detail) == ("catalogue_unusable", True)
    assert len(works.live()) == 52
    change(works, log, "new", put(works, 1))
    assert works.reindex(force=True).promoted
    assert [photo.image_id for photo in works.live().photos()] == ["new"]


def test_the_log_is_cut_once_no_snapshot_that_is_kept_needs_it_and_photos_go_with_it(
    works: Works, log: ChangeLog
) -> None:
    change(works, log, "brief", put(works, 1))
    gone = put(works, 1).sha256
    change(works, log, "new", put(works, 2))
    works.start()
    for turn in range(6):  # as many as are kept, and one
        change(works, log, f"no-{turn}", None)
        change(works, log, "brief", None)
        works.reindex()
    assert "new" not in [entry.image_id for entry in log.read()]
    home = works.installation.home
    kept = put(works, 2).sha256
    for sha256 in (gone, kept):
        os.utime(live_photo(home, sha256), (time.time() - 90_000,) * 2)
    change(works, log, "last", None)
    works.reindex()
    assert [live_photo(home, sha256).is_file() for sha256 in (gone, kept)] == [False, True]
    assert sweep_live_photos(home, set()) == 1


def test_changes_outlive_a_refused_reindex_after_another_model_was_promoted(works: Works, log: ChangeLog) -> None:
    live, photo = works.live(), put(works, 1)
    of_another_model = write_snapshot(
        works.indexes,
        live.photos(),
        Embeddings(live.vectors(slice(None)), live.scores(slice(None))),
        fingerprint="another",
        catalogue="c",
        catalogue_digest="d",
    )
    works.indexes.promote(of_another_model)
    shutil.rmtree(works.indexes.path(live.version))
    change(works, log, "new", photo)
    works.start()
    assert not works.reindex(promote=Promotion.NEVER).promoted
    assert works.reindex(promote=Promotion.IF_VALID).promoted
    assert works.live().row_of("new") is not None


def test_changes_outlive_the_snapshot_that_holds_them(works: Works, log: ChangeLog) -> None:
    deleted = works.installation.photo_rows()[0]["id"]
    change(works, log, "new", put(works, 1))
    change(works, log, deleted, None)
    works.start()
    for turn in range(5):  # until no log has them any more
        assert works.reindex().promoted
        change(works, log, f"no-{turn}", None)
    assert works.reindex().promoted
    assert not {"new", deleted} & {entry.image_id for entry in log.read()}
    works.stop()
    vectors = works.indexes.path(works.live().version) / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    works.start()
    assert works.reindex().promoted
    assert works.live().row_of("new") is not None
    assert works.live().row_of(deleted) is None
