"""Photos that a worker has no model for yet are passed over and keep their places; what is behind them is claimed"""

import pytest

from shared.jobs.contract import EmbedRequest, Job, JobKind, Priority, Submission
from shared.jobs.records import Admission, QuarantineWaits, QueueName
from shared.jobs.store import JobStore
from shared.photos.preprocessing import PreprocessSpec
from tests.conftest import Clock

OLD, NEW = PreprocessSpec(), PreprocessSpec(size_px=64, fit="crop")


def submit(store: JobStore, spec: PreprocessSpec, owner: str = "", *, photo: bool = True, bulk: bool = False) -> Job:
    made = store.create(
        JobKind.EMBED,
        EmbedRequest() if photo else EmbedRequest(image_id="i"),
        b"pixels" if photo else None,
        spec=spec,
        owner=owner,
        admission=Admission(max_queued=1000, max_queued_per_owner=1000),
        submission=Submission(priority=Priority.BULK if bulk else Priority.INTERACTIVE),
    )
    return made.job


def claimed(store: JobStore, *lacking: PreprocessSpec, only: QueueName | None = None) -> str | None:
    taken = store.claim("w", lease_s=15, only=only, lacking=lacking)
    return taken.job.id if taken else None


def test_what_is_lacked_is_left_to_others_in_its_place(store: JobStore, clock: Clock) -> None:
    jobs = []
    for spec in (NEW, NEW, OLD, NEW, OLD):
        jobs.append(submit(store, spec).id)
        clock.now += 1
    assert [claimed(store, NEW) for _ in range(3)] == [jobs[2], jobs[4], None]
    assert [claimed(store) for _ in range(4)] == [jobs[0], jobs[1], jobs[3], None]
    assert {store.get(job_id).attempt for job_id in jobs} == {1}


def test_another_owners_and_another_priority_are_reached(store: JobStore, clock: Clock) -> None:
    new = [submit(store, NEW, owner).id for owner in "abc"]
    clock.now += 1
    old = [submit(store, OLD, "c").id, submit(store, OLD, "d", bulk=True).id]
    assert {claimed(store, NEW), claimed(store, NEW)} == set(old)
    assert claimed(store, NEW) is None
    assert claimed(store, NEW, OLD, only=QueueName.INTERACTIVE) is None
    assert [claimed(store) for _ in range(3)] == new  # in the turns they had


def test_what_brings_no_photo_is_claimed_whatever_is_lacked(store: JobStore) -> None:
    submit(store, OLD)
    named = submit(store, OLD, photo=False)
    assert [claimed(store, OLD), claimed(store, OLD)] == [named.id, None]


def test_a_suspect_that_is_lacked_is_not_announced(store: JobStore, clock: Clock) -> None:
    suspect = submit(store, NEW)
    for _ in range(2):
        assert claimed(store) == suspect.id
        clock.now += 16
        assert store.reap(max_attempts=3).requeued == [suspect.id]
    old = submit(store, OLD)
    assert [claimed(store, NEW), claimed(store, NEW)] == [old.id, None]
    assert claimed(store, NEW, only=QueueName.QUARANTINE) is None
    with pytest.raises(QuarantineWaits):
        claimed(store)


def test_a_claim_ends_however_much_is_passed_over_and_whatever_has_expired(store: JobStore, clock: Clock) -> None:
    for owner in "ab":
        for _ in range(150):
            submit(store, NEW, owner)
    late = submit(store, OLD, "c")
    assert claimed(store, NEW) in (late.id, None)  # it looks at some hundred only
    clock.now += 1e6  # all are past their deadline
    assert claimed(store, NEW) is None
    assert claimed(store) is None
