"""Any interleaving of transitions on a real Valkey: each job ends once, and the sorted sets say what the records say"""

from collections import defaultdict
from typing import cast

import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shared.errors import JobFinished, NotRetryable, WorkerLost
from shared.jobs import EmbedRequest, Job, JobKind, JobStatus, Priority, Submission
from shared.store.jobs import JobStore
from shared.store.records import PREFIX, SuspectWaits
from tests.conftest import Clock
from tests.integration.conftest import PLENTY
from tests.integration.test_job_store import RESULT

LEASE_S = 15
MAX_ATTEMPTS = 3
CLASSES = ("interactive", "bulk", "suspect")
_pick = st.integers(0, 1_000_000)


class StoreMachine(RuleBasedStateMachine):
    """Does to a store whatever clients, workers, reapers and clocks may do, in any order."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.clock = Clock()
        self.store = JobStore(self.client, clock=self.clock)
        self.ids: list[str] = []
        self.claims: list[Job] = []
        self.ended: dict[str, JobStatus] = {}
        self.attempts: dict[str, int] = defaultdict(int)

    # --- what may happen ---

    @rule(
        owner=st.sampled_from(["", "a", "b"]),
        priority=st.sampled_from(Priority),
        deadline_s=st.sampled_from([None, 1, 10, 60]),
    )
    def create(self, owner: str, priority: Priority, deadline_s: float | None) -> None:
        submission = Submission(priority=priority, deadline_s=deadline_s)
        job, _ = self.store.create(
            JobKind.EMBED, EmbedRequest(), b"p", admission=PLENTY, owner=owner, submission=submission
        )
        self.ids.append(job.id)

    @rule(suspects=st.booleans())
    def claim(self, suspects: bool) -> None:
        try:
            taken = self.store.claim("w", lease_s=LEASE_S, suspects=suspects)
        except SuspectWaits:
            assert not suspects
            assert self.lines("suspect")
            return
        if taken is None:
            waiting = self.lines("suspect") if suspects else self.queued()
            assert not waiting
            return
        job = taken.job
        assert job.id not in self.ended
        assert job.deadline_at > self.clock.now
        assert job.attempt == self.attempts[job.id] + 1 <= MAX_ATTEMPTS
        assert (job.attempt == MAX_ATTEMPTS) == suspects  # the last attempt, and no other, is made alone
        self.attempts[job.id] = job.attempt
        self.claims.append(job)

    @precondition(lambda self: self.claims)
    @rule(which=_pick, succeeds=st.booleans(), forget=st.booleans())
    def finish(self, which: int, succeeds: bool, forget: bool) -> None:
        """By whoever once claimed it, be it late or again."""
        job = self.claims[which % len(self.claims)]
        before = self.status(job.id)
        holds = before in ("running", "canceling") and self.attempts[job.id] == job.attempt
        ended = self.store.succeed(job, RESULT) if succeeds else self.store.fail(job, WorkerLost("died"))
        expected = JobStatus.SUCCEEDED if succeeds else JobStatus.FAILED
        assert ended == ((JobStatus.CANCELED if before == "canceling" else expected) if holds else None)
        if forget:
            self.claims.remove(job)

    @precondition(lambda self: self.claims)
    @rule(n=st.integers(1, 5))
    def extend(self, n: int) -> None:
        held = [(job.id, job.attempt) for job in self.claims[-n:]]
        wanted = self.store.extend(held, lease_s=LEASE_S)
        assert wanted == {
            (job_id, attempt)
            for job_id, attempt in held
            if self.status(job_id) == "running" and self.attempts[job_id] == attempt
        }

    @precondition(lambda self: self.ids)
    @rule(which=_pick)
    def cancel(self, which: int) -> None:
        job_id = self.ids[which % len(self.ids)]
        try:
            assert self.store.cancel(job_id).status in (JobStatus.CANCELED, JobStatus.CANCELING, JobStatus.EXPIRED)
        except JobFinished:
            assert job_id in self.ended

    @precondition(lambda self: self.ids)
    @rule(which=_pick)
    def read(self, which: int) -> None:
        job = self.store.get(self.ids[which % len(self.ids)])
        assert job.status.terminal or job.deadline_at > self.clock.now

    @precondition(lambda self: self.ids)
    @rule(which=_pick)
    def retry(self, which: int) -> None:
        try:
            job, _ = self.store.retry(self.ids[which % len(self.ids)], admission=PLENTY)
        except NotRetryable:
            return
        self.ids.append(job.id)

    @rule()
    def reap(self) -> None:
        self.store.reap(max_attempts=MAX_ATTEMPTS)

    @rule(seconds=st.sampled_from([-100, -5, 0.5, 5, 16, 61]))
    def pass_time(self, seconds: float) -> None:
        """Or step backwards, as clocks do."""
        self.clock.now += seconds

    # --- what must hold ---

    @invariant()
    def terminal_states_never_change(self) -> None:
        for job_id in self.ids:
            status = JobStatus(self.status(job_id))
            assert self.ended.get(job_id, status) is status
            if status.terminal:
                self.ended[job_id] = status
            assert self.client.llen(f"{PREFIX}done:{job_id}") == status.terminal

    @invariant()
    def the_sets_say_what_the_records_say(self) -> None:
        of = defaultdict(set)
        for job_id in self.ids:
            of[self.status(job_id)].add(job_id)
        held = of["running"] | of["canceling"]
        assert self.members("queued") == of["queued"] == self.queued()
        assert self.members("running") == held
        assert self.members("deadlines") == of["queued"] | held
        for job_id in self.ids:
            kept = self.client.exists(f"{PREFIX}pixels:{job_id}")
            assert kept == (self.status(job_id) in ("queued", "running", "canceling", "failed"))
        backlog = self.store.backlog()
        assert backlog.queued == {name: len(self.lines(name)) for name in CLASSES}
        assert (self.store.depth(), backlog.running) == (len(of["queued"]), len(held))

    @invariant()
    def whoever_waits_has_a_turn(self) -> None:
        for name in CLASSES:
            prefix = f"{PREFIX}line:{name}:"
            owners = {key.removeprefix(prefix) for key in self.keys(f"{prefix}*")}
            assert self.members(f"turns:{name}") == owners

    def teardown(self) -> None:
        """When workers come back, every job ends, and nothing is left over."""
        for _ in range(MAX_ATTEMPTS + 1):
            while (job := self.any_claim()) is not None:
                self.attempts[job.id] = job.attempt
                self.store.succeed(job, RESULT)
            self.clock.now += LEASE_S + 101  # past leases given before a step backwards
            self.reap()
        self.terminal_states_never_change()
        assert set(self.ended) == set(self.ids)
        for name in ("queued", "running", "deadlines", *(f"turns:{name}" for name in CLASSES)):
            assert not self.members(name)
        assert self.keys(f"{PREFIX}line:*") == []

    # --- how it is seen ---

    def any_claim(self) -> Job | None:
        try:
            taken = self.store.claim("w", lease_s=LEASE_S)
        except SuspectWaits:
            taken = self.store.claim("w", lease_s=LEASE_S, suspects=True)
        return taken.job if taken else None

    def status(self, job_id: str) -> str:
        raw = self.client.hget(f"{PREFIX}job:{job_id}", "status")
        assert isinstance(raw, bytes)
        return raw.decode()

    def members(self, name: str) -> set[str]:
        return {raw.decode() for raw in cast(list[bytes], self.client.zrange(PREFIX + name, 0, -1))}

    def lines(self, name: str) -> set[str]:
        keys = self.keys(f"{PREFIX}line:{name}:*")
        return {job_id for key in keys for job_id in self.members(key.removeprefix(PREFIX))}

    def keys(self, pattern: str) -> list[str]:
        return [key.decode() for key in cast(list[bytes], self.client.keys(pattern))]

    def queued(self) -> set[str]:
        return set().union(*map(self.lines, CLASSES))


def test_whatever_happens_every_job_ends_once_and_the_sets_agree(client: redis.Redis) -> None:
    class Machine(StoreMachine):
        pass

    Machine.client = client
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
