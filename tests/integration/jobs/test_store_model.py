"""Any interleaving of transitions on a real Valkey: each job ends once, and the sorted sets say what the records say"""

from collections import defaultdict
from random import Random
from typing import cast

import pytest
import redis

from shared.errors import JobFinished, NotRetryable, WorkerLost
from shared.jobs.contract import EmbedRequest, Job, JobKind, JobStatus, Priority, Submission
from shared.jobs.records import PREFIX, QuarantineWaits, QueueName
from shared.jobs.store import JobStore
from tests.conftest import Clock
from tests.integration.conftest import PLENTY
from tests.support.jobs import RESULT

N_STEPS = 250
LEASE_S = 15
MAX_ATTEMPTS = 3
CLASSES = ("interactive", "bulk", "suspect")
UNFINISHED = {"queued", "running", "canceling"}


class Walk:
    """Does to a store whatever clients, workers, reapers and clocks may do, in an order that `chance` decides."""

    def __init__(self, client: redis.Redis, chance: Random) -> None:
        self.client = client
        self.chance = chance
        self.clock = Clock()
        self.store = JobStore(client, clock=self.clock)
        self.latest = self.clock.now
        self.claims: list[Job] = []
        self.status: dict[str, str] = {}  # of every job, as its record told last
        self.attempts: dict[str, int] = defaultdict(int)
        self.trace: list[str] = []

    def step(self) -> None:
        actions = {
            self.create: 6, self.claim: 8, self.finish: 4, self.extend: 2, self.cancel: 2, self.read: 1, self.retry: 1,
            self.reap: 1, self.lose_workers: 2, self.pass_time: 2, self.claim_by_id: 2,
        }  # fmt: skip
        [action] = self.chance.choices(list(actions), list(actions.values()))
        self.trace.append(action.__name__)
        action()
        self.latest = max(self.latest, self.clock.now)
        self.check()

    # --- what may happen ---

    def create(self) -> None:
        submission = Submission(
            priority=self.chance.choice(list(Priority)), deadline_s=self.chance.choice([None, None, None, 10, 60])
        )
        owner = self.chance.choice(["", "a", "b"])
        job = self.store.create(
            JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner=owner, submission=submission
        ).job
        self.status[job.id] = "queued"

    def claim(self) -> None:
        suspects = self.chance.random() < 0.3
        try:
            taken = self.store.claim("w", lease_s=LEASE_S, only=QueueName.QUARANTINE if suspects else None)
        except QuarantineWaits:
            assert not suspects
            assert self.line("suspect")
            return
        if taken is None:
            assert not self.line("suspect")
            assert suspects or not self.members("queued")
            return
        job = taken.job
        assert self.status[job.id] == "queued"
        assert job.deadline_at > self.clock.now
        assert job.attempt == self.attempts[job.id] + 1 <= MAX_ATTEMPTS
        assert (job.attempt == MAX_ATTEMPTS) == suspects  # the last attempt, and no other, is made alone
        self.attempts[job.id] = job.attempt
        self.claims.append(job)

    def claim_by_id(self) -> None:
        if not (job_id := self.any_job()):
            return
        waits = job_id in self.line("interactive") | self.line("bulk")
        taken = self.store.claim_job(job_id, "w", lease_s=LEASE_S)
        if taken is None:
            assert not waits or self.store.get(job_id).status is JobStatus.EXPIRED
            return
        assert waits
        assert taken.job.deadline_at > self.clock.now
        assert taken.job.attempt == self.attempts[job_id] + 1 < MAX_ATTEMPTS
        self.attempts[job_id] = taken.job.attempt
        self.claims.append(taken.job)

    def finish(self) -> None:
        """By whoever once claimed it, be it late or again."""
        if not self.claims:
            return
        job = self.chance.choice(self.claims)
        succeeds = self.chance.random() < 0.7
        before = self.status[job.id]
        ended = self.store.succeed(job, RESULT) if succeeds else self.store.fail(job, WorkerLost("died"))
        if not self.holds(job, "running", "canceling"):
            assert ended is None
        elif before == "canceling":
            assert ended is JobStatus.CANCELED
        else:
            assert ended is (JobStatus.SUCCEEDED if succeeds else JobStatus.FAILED)

    def extend(self) -> None:
        held = self.chance.sample(self.claims, min(3, len(self.claims)))
        wanted = self.store.extend([(job.id, job.attempt) for job in held], lease_s=LEASE_S)
        assert wanted == {(job.id, job.attempt) for job in held if self.holds(job, "running")}

    def cancel(self) -> None:
        if not (job_id := self.any_job()):
            return
        try:
            self.store.cancel(job_id)
        except JobFinished:
            assert self.status[job_id] not in UNFINISHED or self.store.get(job_id).status.terminal
        else:
            assert self.status[job_id] in UNFINISHED

    def read(self) -> None:
        if job_id := self.any_job():
            job = self.store.get(job_id)
            assert job.status.terminal or job.deadline_at > self.clock.now

    def retry(self) -> None:
        if not (job_id := self.any_job()):
            return
        try:
            job = self.store.retry(job_id, admission=PLENTY).job
        except NotRetryable:
            assert self.store.get(job_id).status is not JobStatus.FAILED
        else:
            self.status[job.id] = "queued"

    def reap(self) -> None:
        self.store.reap(max_attempts=MAX_ATTEMPTS)

    def lose_workers(self) -> None:
        self.clock.now += LEASE_S + 1
        self.reap()

    def pass_time(self) -> None:
        """Or step backwards, as clocks do."""
        self.clock.now += self.chance.choice([-100, -5, 0.5, 5])

    # --- what must hold ---

    def check(self) -> None:
        ids = list(self.status)
        with self.client.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hget(f"{PREFIX}job:{job_id}", "status")
                pipe.llen(f"{PREFIX}done:{job_id}")
                pipe.exists(f"{PREFIX}pixels:{job_id}")
            told = pipe.execute()
        of = defaultdict(set)
        for job_id, raw, n_done, has_photo in zip(ids, told[::3], told[1::3], told[2::3], strict=True):
            status, before = raw.decode(), self.status[job_id]
            assert before in UNFINISHED or before == status  # a terminal state never changes
            assert n_done == (status not in UNFINISHED)
            assert has_photo == (status in UNFINISHED or status == "failed")
            self.status[job_id] = status
            of[status].add(job_id)
        held = of["running"] | of["canceling"]
        lines = {name: self.line(name) for name in CLASSES}
        assert self.members("queued") == of["queued"] == set().union(*lines.values())
        assert self.members("running") == held
        assert self.members("deadlines") == of["queued"] | held
        backlog = self.store.backlog()
        assert backlog.queued == {line: len(lines.get(line, ())) for line in QueueName}
        assert (self.store.depth(), backlog.running) == (len(of["queued"]), len(held))
        for name in CLASSES:
            assert self.members(f"turns:{name}") == self.owners(name)  # whoever waits has a turn

    def come_to_an_end(self) -> None:
        """When workers come back, every job ends, and nothing is left over."""
        for _ in range(MAX_ATTEMPTS):
            while (job := self.claim_any()) is not None:
                self.store.succeed(job, RESULT)
            self.clock.now = max(self.clock.now, self.latest) + LEASE_S + 1  # leases given before steps backwards too
            self.reap()
            self.check()
        assert UNFINISHED.isdisjoint(self.status.values())
        for name in ("queued", "running", "deadlines", *(f"turns:{name}" for name in CLASSES)):
            assert not self.members(name)

    def claim_any(self) -> Job | None:
        try:
            taken = self.store.claim("w", lease_s=LEASE_S)
        except QuarantineWaits:
            taken = self.store.claim("w", lease_s=LEASE_S, only=QueueName.QUARANTINE)
        return taken.job if taken else None

    # --- how it is seen ---

    def any_job(self) -> str | None:
        """Most often one that has been claimed."""
        if self.claims and self.chance.random() < 0.7:
            return self.chance.choice(self.claims[-6:]).id
        return self.chance.choice(list(self.status)) if self.status else None

    def holds(self, job: Job, *states: str) -> bool:
        return self.status[job.id] in states and self.attempts[job.id] == job.attempt

    def members(self, name: str) -> set[str]:
        return {raw.decode() for raw in cast(list[bytes], self.client.zrange(PREFIX + name, 0, -1))}

    def owners(self, name: str) -> set[str]:
        prefix = f"{PREFIX}line:{name}:"
        return {key.decode().removeprefix(prefix) for key in cast(list[bytes], self.client.keys(f"{prefix}*"))}

    def line(self, name: str) -> set[str]:
        return {job_id for owner in self.owners(name) for job_id in self.members(f"line:{name}:{owner}")}


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_every_job_ends_once_and_the_sets_agree(client: redis.Redis, seed: int) -> None:
    walk = Walk(client, Random(seed))
    try:
        for _ in range(N_STEPS):
            walk.step()
        walk.come_to_an_end()
    except AssertionError:
        print(walk.trace)
        raise
    assert {"succeeded", "failed", "canceled", "expired"} <= set(walk.status.values())
