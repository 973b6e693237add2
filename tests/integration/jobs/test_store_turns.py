"""Who may submit, whose turn it is, and what lists tell of it, on a real Valkey."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.errors import (
    AcceptanceUnknown,
    IdempotencyConflict,
    InvalidRequest,
    JobGone,
    JobNotFound,
    NotRetryable,
    QueueShareFull,
)
from shared.jobs.contract import (
    EmbedRequest,
    Job,
    JobKind,
    JobStatus,
    Priority,
    SearchRequest,
    Submission,
)
from shared.jobs.listing import JobListing
from shared.jobs.records import PREFIX, Admission, Idempotency, QuarantineWaits, QueueName
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.integration.conftest import PLENTY
from tests.support.jobs import RESULT, claim, create, reap

# --- whose turn it is ---


def claimed_owners(store: JobStore, count: int) -> list[str]:
    return [claim(store).owner for _ in range(count)]


def test_owners_take_turns_however_much_one_of_them_sends(store: JobStore) -> None:
    for _ in range(20):
        create(store, owner="flood")
    claimed_owners(store, 5)
    for _ in range(3):
        create(store, owner="other")
    assert claimed_owners(store, 6).count("other") == 3
    assert claimed_owners(store, 3) == ["flood"] * 3


def test_a_newcomer_does_not_keep_the_others_from_their_turn(store: JobStore) -> None:
    for _ in range(30):
        create(store, owner="patient")
    served = []
    for number in range(20):
        create(store, owner=f"new-{number}")
        served += claimed_owners(store, 2)
    assert served.count("patient") >= 9


def test_a_tenants_own_jobs_are_served_first_in_first_out(store: JobStore, clock: Clock) -> None:
    created = []
    for _ in range(5):
        clock.now += 1
        created.append(create(store, owner="a").id)
    assert [claim(store).id for _ in range(5)] == created


def test_interactive_jobs_go_first_and_bulk_ones_are_never_starved(store: JobStore) -> None:
    for _ in range(40):
        create(store, priority="bulk")
        create(store)
    first = [claim(store).submission.priority for _ in range(40)]
    assert first.count(Priority.BULK) == 5
    assert [claim(store).submission.priority for _ in range(40)].count(Priority.INTERACTIVE) == 5


def test_a_place_in_the_queue_is_what_happens(store: JobStore, clock: Clock) -> None:
    jobs = []
    for number in range(30):
        clock.now += 1
        jobs.append(create(store, owner="abc"[number % 3] if number > 5 else "a"))
    places = {}
    for job in jobs:
        place = store.place(job)
        assert place is not None
        assert place.eta_s is None  # nothing has ended yet
        places[job.id] = place.ahead
    served = [claim(store).id for _ in jobs]
    # Ties between owners may fall either way, so each may be off by the number of other owners.
    assert all(abs(places[job_id] - position) <= 2 for position, job_id in enumerate(served))
    assert store.place(jobs[0]) is None


# --- jobs that kill their workers ---


def test_the_last_attempt_is_made_alone(store: JobStore, clock: Clock) -> None:
    poison, neighbour = create(store), create(store)
    for _ in range(2):
        claim(store), claim(store)
        clock.now += 16
        assert set(reap(store)) == {poison.id, neighbour.id}
    fresh = create(store)
    with pytest.raises(QuarantineWaits):
        store.claim("w", lease_s=15)
    alone = [claim(store, suspects=True), claim(store, suspects=True)]
    assert {job.id for job in alone} == {poison.id, neighbour.id}
    assert store.claim("w", lease_s=15, only=QueueName.QUARANTINE) is None
    claim(store, fresh)


# --- idempotency, limits, retries ---


def idempotent(store: JobStore, key: str, digest: str, owner: str = "") -> tuple[Job, bool]:
    job, is_new, _ = store.create(
        JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner=owner, idempotency=Idempotency(key, digest)
    )
    return job, is_new


def test_one_idempotency_key_makes_one_job_however_many_send_it_at_once(store: JobStore) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: idempotent(store, "k", "d"), range(50)))
    assert len({job.id for job, _ in made}) == 1
    assert [is_new for _, is_new in made].count(True) == 1
    assert store.depth() == 1


def test_an_idempotency_key_belongs_to_one_request_of_one_owner(store: JobStore) -> None:
    first, _ = idempotent(store, "k", "d")
    with pytest.raises(IdempotencyConflict):
        idempotent(store, "k", "other")
    other, is_new = idempotent(store, "k", "other", owner="b")
    assert is_new
    assert other.id != first.id


def test_a_key_whose_job_a_failover_has_lost_meanwhile_is_to_be_sent_again(
    store: JobStore, client: redis.Redis
) -> None:
    first, _ = idempotent(store, "k", "d")
    client.delete(PREFIX + "job:" + first.id, PREFIX + "gone:" + first.id)  # one primary knew the key, the next no job
    with pytest.raises(AcceptanceUnknown, match="send it again") as lost:
        idempotent(store, "k", "d")
    assert lost.value.job_id == first.id


def test_an_owner_may_fill_its_share_and_no_more(store: JobStore, clock: Clock) -> None:
    limits = Admission(max_queued=10, max_queued_per_owner=2)

    def submit(owner: str) -> None:
        until = Submission(deadline_s=60)
        store.create(JobKind.EMBED, EmbedRequest(), b"p", admission=limits, submission=until, owner=owner)

    submit("a")
    submit("a")
    with pytest.raises(QueueShareFull) as refused:
        submit("a")
    assert refused.value.retry_after_s >= 1
    submit("b")
    clock.now += 61
    submit("a")
    submit("a")


def test_a_failed_job_can_be_tried_again_and_others_cannot(store: JobStore) -> None:
    job = claim(store, create(store, b"photo", owner="a", priority="bulk"))
    with pytest.raises(NotRetryable):
        store.retry(job.id, admission=PLENTY)
    store.fail(job, InvalidRequest("no"))
    again = store.retry(job.id, admission=PLENTY).job
    assert (again.owner, again.submission) == (job.owner, job.submission)
    taken = store.claim("w", lease_s=15)
    assert taken is not None
    assert (taken.job.id, taken.pixels) == (again.id, b"photo")
    assert store.get(job.id).status is JobStatus.FAILED


def test_the_photos_of_failed_jobs_cannot_fill_redis(store: JobStore, client: redis.Redis) -> None:
    for _ in range(210):
        create(store, max_queued=1000)
        store.fail(claim(store), InvalidRequest("no"))
    assert len(client.keys(PREFIX + "pixels:*")) == 200


def test_jobs_without_photos_keep_none_from_being_retried(store: JobStore, client: redis.Redis) -> None:
    for _ in range(210):
        create(store, None, max_queued=1000)
        store.fail(claim(store), InvalidRequest("no"))
    job = create(store)
    store.fail(claim(store), InvalidRequest("no"))
    assert client.exists(f"{PREFIX}pixels:{job.id}")


def test_an_idempotency_key_never_outlives_what_is_known_of_its_job(client: redis.Redis) -> None:
    store = JobStore(client, job_ttl_s=7 * 86_400, result_ttl_s=1)
    job, _ = idempotent(store, "k", "d")
    store.succeed(claim(store), RESULT)
    [key] = client.keys(f"{PREFIX}idempotency:*")
    assert 0 < client.ttl(key) <= client.ttl(f"{PREFIX}gone:{job.id}")


def test_a_job_of_somebody_else_is_unknown_even_when_it_is_gone(store: JobStore, client: redis.Redis) -> None:
    job = create(store, owner="a")
    assert store.get(job.id, owner="a").id == job.id
    with pytest.raises(JobNotFound):
        store.get(job.id, owner="b")
    client.delete(f"{PREFIX}job:{job.id}")
    with pytest.raises(JobNotFound):
        store.get(job.id, owner="b")
    with pytest.raises(JobGone):
        store.get(job.id, owner="a")


def test_a_full_redis_takes_no_new_job_but_ends_those_it_has(store: JobStore, client: redis.Redis) -> None:
    jobs = [create(store, bytes(100_000)) for _ in range(3)]
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 50_000)
    try:
        with pytest.raises(redis.ResponseError):
            create(store)
        for _ in jobs:
            assert store.succeed(claim(store), RESULT)
    finally:
        client.config_set("maxmemory", 0)
    assert {store.get(job.id).status for job in jobs} == {JobStatus.SUCCEEDED}


def test_a_redis_full_of_photos_past_their_deadline_takes_new_jobs(
    store: JobStore, client: redis.Redis, clock: Clock
) -> None:
    for _ in range(3):
        create(store, bytes(100_000), deadline_s=5)
    clock.now += 6
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 50_000)
    try:
        assert create(store).status is JobStatus.QUEUED
    finally:
        client.config_set("maxmemory", 0)


# --- lists ---


def test_a_list_is_paged_newest_first_and_complete(store: JobStore, client: redis.Redis, clock: Clock) -> None:
    created = []
    for number in range(25):
        clock.now += number % 3  # several of one instant
        created.append(create(store, owner="a").id)
        create(store, owner="b")
    listed: list[Job] = []
    cursor = None
    while True:
        page = JobListing(client).page(owner="a", limit=4, cursor=cursor)
        listed += page.jobs
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(job.id for job in listed) == sorted(created)
    assert [job.created_at for job in listed] == sorted((job.created_at for job in listed), reverse=True)
    assert len(JobListing(client).page(owner=None, limit=100).jobs) == 50


def test_a_list_can_be_of_one_status_or_kind(store: JobStore, client: redis.Redis) -> None:
    failed = claim(store, create(store))
    store.fail(failed, InvalidRequest("no"))
    store.create(JobKind.SEARCH, SearchRequest(), b"p", admission=PLENTY)
    listing = JobListing(client)
    assert [job.id for job in listing.page(owner=None, limit=9, status=JobStatus.FAILED).jobs] == [failed.id]
    assert [job.kind for job in listing.page(owner=None, limit=9, kind=JobKind.SEARCH).jobs] == [JobKind.SEARCH]


def test_lists_forget_jobs_that_no_longer_exist(store: JobStore, client: redis.Redis) -> None:
    for _ in range(300):
        job = create(store, max_queued=1000)
        client.delete(f"{PREFIX}job:{job.id}")  # as its TTL will
    assert client.zcard(PREFIX + "jobs") < 50
    assert JobListing(client).page(owner=None, limit=10).jobs == []


@pytest.mark.parametrize("cursor", ["x", "nan-" + "0" * 32, "é", "1.5-" + "0" * 32, "1" * 400])
def test_a_forged_cursor_is_refused(client: redis.Redis, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        JobListing(client).page(owner=None, limit=1, cursor=cursor)
