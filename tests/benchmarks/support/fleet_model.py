"""A fleet of workers, simulated event by event: lines, claims, passes, shards, leases, deaths. Runs no code of theirs.

What it leaves out: the network, the disk, and that processes may share cores. Where all of that is idle, as with a
model that only sleeps, it must agree with the service (`python -m tests.benchmarks.simulate --check`).
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count


@dataclass(frozen=True)
class Costs:
    """Seconds of whatever does one thing at a time.

    Attributes:
        pass_s: of one of a worker's streams, for a forward pass of however few photos.
        photo_s: the same, for each photo in it.
        pass_photos: photos of a pass at most.
        streams: passes of a worker at the same time.
        worker_s: of a worker's interpreter, for a job besides its pass.
        redis_s: of Redis's one thread, for a job from submit to end.
        beat_redis_s: the same, for a worker's heartbeat, and `beat_report_s` more for each worker there is.
        shard_redis_s: the same, for a shard.
        api_s: of an API process, for a photo that is submitted and waited for.
    """

    pass_s: float
    photo_s: float
    pass_photos: int = 2
    streams: int = 1
    worker_s: float = 0.0
    redis_s: float = 0.0
    beat_redis_s: float = 0.0
    beat_report_s: float = 0.0
    shard_redis_s: float = 0.0
    api_s: float = 0.0

    @property
    def photos_per_s(self) -> float:
        """Of one worker, with full passes."""
        return self.streams * self.pass_photos / (self.pass_s + self.pass_photos * self.photo_s)


@dataclass(frozen=True)
class Fleet:
    """Workers and their settings.

    Attributes:
        lives_s: mean time until a worker is killed; 0: it lives for ever.
        away_s: until one that was killed works again.
        kills: (time, worker) of further deaths.
    """

    workers: int
    threads: int = 8
    shards_at_a_time: int = 2
    shard_photos: int = 64
    shard_ahead: int = 16
    lease_s: float = 15.0
    beat_s: float = 2.0
    bulk_patience_s: float = 1.0
    max_attempts: int = 3
    lives_s: float = 0.0
    away_s: float = 10.0
    kills: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Load:
    """What is asked for.

    Attributes:
        waiting: jobs there from the beginning.
        per_s: jobs that arrive, at random.
        shards: of a reindex, there from the beginning.
    """

    waiting: int = 0
    per_s: float = 0.0
    shards: int = 0


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        ended_at: of each job, in order; `latencies_s` from its arrival.
        shard_photos: embedded in shards that were finished.
        redis_busy: share of the time.
    """

    ended_at: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    shard_photos: int = 0
    redis_busy: float = 0.0
    deaths: int = 0
    retried: int = 0
    failed: int = 0
    lasted_s: float = 0.0


@dataclass
class _Job:
    arrived: float
    attempts: int = 0


@dataclass
class _Shard:
    to_start: int
    to_end: int
    attempts: int = 0


@dataclass
class _Photo:
    """A photo at a worker's model: of a job, or one of a shard's."""

    of: _Job | _Shard
    since: float


class _OneAtATime:
    """Serves in the order of arrival."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self._free_at = 0.0

    def serve(self, now: float, cost_s: float) -> float:
        """When it is done with what arrives now."""
        self.busy_s += cost_s
        self._free_at = max(self._free_at, now) + cost_s
        return self._free_at


@dataclass
class _Worker:
    life: int = 0  # what belongs to an earlier one is void
    alive: bool = True
    idle: int = 0
    idle_shards: int = 0
    running: int = 0
    jobs: deque[_Photo] = field(default_factory=deque)
    bulk: deque[_Photo] = field(default_factory=deque)
    in_hand: dict[int, _Job | _Shard] = field(default_factory=dict)
    interpreter: _OneAtATime = field(default_factory=_OneAtATime)


class Simulation:
    """One run."""

    def __init__(self, costs: Costs, fleet: Fleet, load: Load, *, seed: int = 17) -> None:
        self._costs, self._fleet, self._load = costs, fleet, load
        self._rng = random.Random(seed)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()
        self._redis = _OneAtATime()
        self._line: deque[_Job] = deque(_Job(0.0) for _ in range(load.waiting))
        self._shards = deque(_Shard(fleet.shard_photos, fleet.shard_photos) for _ in range(load.shards))
        self._workers = [_Worker() for _ in range(fleet.workers)]
        self._idle: list[_Worker] = []  # those with an idle thread, some of them no longer
        self._outcome = Outcome()

    def run(self, seconds: float = float("inf")) -> Outcome:
        """Until then, or until everything has ended."""
        for worker in self._workers:
            self._boot(worker, 0)
        for at, number in self._fleet.kills:
            self._at(at, lambda worker=self._workers[number]: self._kill(worker))  # type: ignore[misc]
        if self._load.per_s:
            self._at(self._rng.expovariate(self._load.per_s), self._arrive)
        n_left = self._load.waiting + self._load.shards
        while self._events and self._events[0][0] <= seconds:
            self._now, _, act = heapq.heappop(self._events)
            act()
            n_ended = len(self._outcome.ended_at) + self._outcome.failed
            if not self._load.per_s and n_ended + self._outcome.shard_photos // self._fleet.shard_photos >= n_left:
                break
        self._outcome.lasted_s = self._now
        self._outcome.redis_busy = self._redis.busy_s / self._now if self._now else 0.0
        return self._outcome

    # --- jobs ---

    def _arrive(self) -> None:
        self._line.append(_Job(self._now))
        self._at(self._now + self._rng.expovariate(self._load.per_s), self._arrive)
        self._wake()

    def _wake(self) -> None:
        """Whoever has an idle thread may read the message."""
        while self._idle and self._line:
            chosen = self._rng.randrange(len(self._idle))
            worker = self._idle[chosen]
            if worker.alive and worker.idle:
                self._claim(worker)
            if not (worker.alive and worker.idle):
                self._idle[chosen] = self._idle[-1]
                self._idle.pop()

    def _claim(self, worker: _Worker) -> None:
        if not self._line:
            self._idle.append(worker)
            return
        job = self._line.popleft()
        job.attempts += 1
        worker.idle -= 1
        worker.in_hand[id(job)] = job
        at = self._redis.serve(self._now, self._costs.redis_s * 2 / 3)
        self._for(worker, self._work(worker, at), lambda: self._to_model(worker, worker.jobs, job))

    def _end_job(self, worker: _Worker, job: _Job) -> None:
        at = self._redis.serve(self._work(worker, self._now), self._costs.redis_s / 3)

        def ended() -> None:
            del worker.in_hand[id(job)]
            self._outcome.ended_at.append(self._now)
            self._outcome.latencies_s.append(self._now - job.arrived)
            worker.idle += 1
            self._claim(worker)

        self._for(worker, at, ended)

    def _work(self, worker: _Worker, at: float) -> float:
        return worker.interpreter.serve(at, self._costs.worker_s / 2)

    # --- shards ---

    def _claim_shard(self, worker: _Worker) -> None:
        if not (self._shards and worker.alive and worker.idle_shards):
            return
        shard = self._shards.popleft()
        shard.attempts += 1
        shard.to_start = shard.to_end = self._fleet.shard_photos
        worker.idle_shards -= 1
        worker.in_hand[id(shard)] = shard
        at = self._redis.serve(self._now, self._costs.shard_redis_s)
        self._for(worker, at, lambda: self._start_shard(worker, shard))

    def _start_shard(self, worker: _Worker, shard: _Shard) -> None:
        for _ in range(self._fleet.shard_ahead):
            self._next_of_shard(worker, shard)

    def _next_of_shard(self, worker: _Worker, shard: _Shard) -> None:
        if shard.to_start:
            shard.to_start -= 1
            self._to_model(worker, worker.bulk, shard)

    def _end_photo_of_shard(self, worker: _Worker, shard: _Shard) -> None:
        shard.to_end -= 1
        if shard.to_end:
            self._next_of_shard(worker, shard)
            return
        del worker.in_hand[id(shard)]
        self._outcome.shard_photos += self._fleet.shard_photos
        worker.idle_shards += 1
        self._claim_shard(worker)

    # --- the model ---

    def _to_model(self, worker: _Worker, waiting: deque[_Photo], of: _Job | _Shard) -> None:
        waiting.append(_Photo(of, self._now))
        self._start_passes(worker)

    def _start_passes(self, worker: _Worker) -> None:
        while worker.running < self._costs.streams and (worker.jobs or worker.bulk):
            photos = self._take(worker)
            worker.running += 1
            takes_s = self._costs.pass_s + len(photos) * self._costs.photo_s
            self._for(worker, self._now + takes_s, lambda photos=photos: self._end_pass(worker, photos))  # type: ignore[misc]

    def _take(self, worker: _Worker) -> list[_Photo]:
        """As the batcher does: overdue photos of shards up to a quarter, then one class alone."""
        photos: list[_Photo] = []
        overdue = self._now - self._fleet.bulk_patience_s
        share = max(1, self._costs.pass_photos // 4)
        while worker.jobs and worker.bulk and worker.bulk[0].since <= overdue and len(photos) < share:
            photos.append(worker.bulk.popleft())
        source = worker.jobs or worker.bulk
        while source and len(photos) < self._costs.pass_photos:
            photos.append(source.popleft())
        return photos

    def _end_pass(self, worker: _Worker, photos: list[_Photo]) -> None:
        worker.running -= 1
        for photo in photos:
            if isinstance(photo.of, _Job):
                self._end_job(worker, photo.of)
            else:
                self._end_photo_of_shard(worker, photo.of)
        self._start_passes(worker)

    # --- lives ---

    def _boot(self, worker: _Worker, life: int) -> None:
        fleet = self._fleet
        worker.__init__(life=life, idle=fleet.threads, idle_shards=fleet.shards_at_a_time)  # type: ignore[misc]
        self._for(worker, self._now + self._rng.uniform(0, fleet.beat_s), lambda: self._beat(worker))
        if fleet.lives_s:
            self._for(worker, self._now + self._rng.expovariate(1 / fleet.lives_s), lambda: self._kill(worker))
        for _ in range(fleet.threads):
            self._claim(worker)
        for _ in range(fleet.shards_at_a_time):
            self._claim_shard(worker)

    def _beat(self, worker: _Worker) -> None:
        costs = self._costs
        self._redis.serve(self._now, costs.beat_redis_s + self._fleet.workers * costs.beat_report_s)
        self._for(worker, self._now + self._fleet.beat_s, lambda: self._beat(worker))

    def _kill(self, worker: _Worker) -> None:
        if not worker.alive:
            return
        self._outcome.deaths += 1
        worker.alive = False
        worker.life += 1
        # The lease was last extended within a beat; the reaper of some other worker looks once in a beat.
        found_at = self._now + self._fleet.lease_s + self._rng.uniform(-1, 1) * self._fleet.beat_s
        stranded = list(worker.in_hand.values())
        self._at(found_at, lambda: self._reap(stranded))
        self._at(self._now + self._fleet.away_s, lambda life=worker.life: self._boot(worker, life))  # type: ignore[misc]

    def _reap(self, stranded: list[_Job | _Shard]) -> None:
        for each in stranded:
            if each.attempts >= self._fleet.max_attempts:
                self._outcome.failed += 1
            elif isinstance(each, _Job):
                self._outcome.retried += 1
                self._line.appendleft(each)
            else:
                self._outcome.retried += 1
                self._shards.appendleft(each)
        self._wake()
        for worker in self._workers:
            self._claim_shard(worker)

    # --- time ---

    def _at(self, at: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._events, (at, next(self._order), act))

    def _for(self, worker: _Worker, at: float, act: Callable[[], object]) -> None:
        """What a worker does then, if it still lives that life."""
        life = worker.life
        self._at(at, lambda: act() if worker.life == life else None)
