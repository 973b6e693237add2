"""Clients that submit a job, repeat it under its id until it is accepted, wait for its end, and go on with the next."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import redis
import urllib3

from tests.benchmarks.ledger.account import Account
from tests.benchmarks.ledger.journal import Journal, Line
from tests.benchmarks.ledger.parts import Place
from tests.benchmarks.ledger.systems import Answer, System

N_CLIENTS = 16
_AGAIN_S = 0.2
_WAIT_S = 5.0  # for the end of one's job
_READ_EVERY_S = 0.02
_TIMEOUT_S = 30.0
# Numbers of jobs before the first that is counted.
_WARM_UP = itertools.count(1 << 23)


class Clients:
    """Threads on the host `client` that know from the journal when their job has ended, whatever the system tells.

    Args:
        url: of the system's API.
    """

    def __init__(self, system: System, url: str, place: Place, journal: Journal) -> None:
        self.account = Account(keeps_outcomes=system.keeps_outcomes)
        self.lines: list[Line] = []
        self._system, self._url, self._place, self._journal = system, url, place, journal
        self._http = urllib3.PoolManager(
            maxsize=N_CLIENTS, retries=False, timeout=urllib3.Timeout(total=_TIMEOUT_S), block=False
        )
        self._run = uuid.uuid4().hex[:12]
        self._addresses: dict[int, str] = {}
        self._ended: set[int] = set()
        self._pids: set[int] = set()
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def warm_up(self, n_workers: int, within_s: float) -> None:
        """Return when so many workers have run jobs, which are not counted."""
        deadline = time.monotonic() + within_s
        with self._place.inside("client"), ThreadPoolExecutor(N_CLIENTS) as pool:
            while len(self._pids) < n_workers:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{self._system.name}: only {len(self._pids)} of {n_workers} workers run jobs")
                submitted = [pool.submit(self._submit, next(_WARM_UP)) for _ in range(N_CLIENTS)]
                wait(submitted, deadline - time.monotonic())  # a backlog would only take time from workers that start
                time.sleep(1)
        if not self.wait_ended(set(self._addresses), within_s):
            raise SystemExit(f"{self._system.name}: jobs do not end though nothing was killed")
        self.account.accepted.clear()
        self.account.sent.clear()
        self.account.tries.clear()
        self.account.in_doubt = 0
        self._addresses.clear()

    def run(self, n_jobs: int) -> "Future[None]":
        """Begin; done when all jobs are accepted and were waited for."""

        def client(numbers: "itertools.count[int]") -> None:
            while (number := next(numbers)) < n_jobs:
                self._one(number)

        def everyone() -> None:
            numbers = itertools.count()
            with self._place.inside("client"), ThreadPoolExecutor(N_CLIENTS) as pool:
                self.account.began_at = time.time()
                for ended in [pool.submit(client, numbers) for _ in range(N_CLIENTS)]:
                    ended.result()
                self.account.over_at = time.time()

        pool = ThreadPoolExecutor(1)
        running = pool.submit(everyone)
        pool.shutdown(wait=False)
        return running

    def wait_ended(self, numbers: set[int], within_s: float) -> bool:
        """Whether all these jobs have ended, by the journal, before that time is over."""
        with self._news:
            return self._news.wait_for(lambda: numbers <= self._ended, within_s)

    @property
    def open(self) -> set[int]:
        """Accepted jobs that have not ended."""
        return set(self.account.accepted) - self._ended

    def note_undelivered(self, valkey: redis.Redis) -> None:
        """Tell jobs that are lost from those whose messages still wait."""
        if self.open:
            keys = self._system.undelivered(valkey)
            self.account.undelivered = {number for number in self.open if self._key(number) in keys}

    def read_last(self) -> None:
        """Read every outcome again."""
        if self._system.keeps_outcomes:
            with self._place.inside("client"), ThreadPoolExecutor(N_CLIENTS) as pool:
                numbers = list(self.account.accepted)
                outcomes = pool.map(lambda number: self._outcome(number, _WAIT_S), numbers)
                self.account.last = dict(zip(numbers, outcomes, strict=True))

    def close(self) -> None:
        self._stopping.set()
        self._follower.join()
        self._http.clear()

    def _one(self, number: int) -> None:
        self._submit(number)
        ended = self.wait_ended({number}, _WAIT_S)
        if ended and self._system.keeps_outcomes and (outcome := self._outcome(number, _WAIT_S)):
            self.account.seen[number] = outcome

    def _key(self, number: int) -> str:
        return f"{self._run}-{number}"

    def _submit(self, number: int) -> None:
        while True:
            sent_at = time.time()
            self.account.tries.append(sent_at)
            try:
                answer, address = self._system.submit(self._http, self._url, self._key(number), number)
            except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
                answer = Answer.REFUSED
            except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                answer = Answer.IN_DOUBT
            if answer is Answer.ACCEPTED:
                self._addresses[number] = address
                self.account.sent[number], self.account.accepted[number] = sent_at, time.time()
                return
            if answer is Answer.IN_DOUBT:
                with self._news:
                    self.account.in_doubt += 1
            time.sleep(_AGAIN_S)

    def _outcome(self, number: int, within_s: float) -> str | None:
        read: Callable[[], str | None] = lambda: self._system.outcome(self._http, self._addresses[number])  # noqa: E731
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                if outcome := read():
                    return outcome
            except (urllib3.exceptions.HTTPError, json.JSONDecodeError):
                pass
            time.sleep(_READ_EVERY_S)
        return None

    def _follow(self) -> None:
        while not self._stopping.wait(0.002):
            if lines := self._journal.news():
                with self._news:
                    self.lines += lines
                    self._pids |= {line.pid for line in lines}
                    self._ended |= {line.number for line in lines if line.event == "ended"}
                    self._news.notify_all()
