"""Ledger: every job a service promised, and whether the promises were kept: each ends, and has one visible effect."""

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import requests

TERMINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
MAX_ATTEMPTS = 3
_LASTING = ("status", "attempt", "created_at", "started_at", "finished_at", "error")
_READERS = 6
_PATIENCE_S = 60
_TRIED = 20
_MARGIN_S = 60.0  # of what is kept, within which an audit reads it
_READ_WHOLE = 150  # so many are read with their results; the others as the list shows them


@dataclass
class Audit:
    """What became of the promises.

    Attributes:
        lost: accepted ids without a terminal state.
        duplicated: what happened twice, a line for each.
    """

    by_status: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)


class Ledger:
    """Accounts of one service; begins with whatever it already holds. Safe to use from many threads.

    Args:
        api_key: whose jobs they are, where the service has keys.
        kept_s: how long the service keeps a job that has ended; what ended earlier is not asked for again.
        max_attempts: that a job may have had; more are no fault where workers hand jobs back, as without a store.

    Attributes:
        headers: what each request must have.
        accepted: the client's key by job id; empty for jobs sent without one.
        job_of: job id by key.
    """

    def __init__(
        self, url: str, api_key: str = "", *, kept_s: float = math.inf, max_attempts: float = MAX_ATTEMPTS
    ) -> None:
        self.url = url
        self._kept_s = kept_s - _MARGIN_S
        self._max_attempts = max_attempts
        self._ended_at: dict[str, float] = {}
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.accepted: dict[str, str] = {}
        self.job_of: dict[str, str] = {}
        self._ended: dict[str, dict[str, object]] = {}
        self._duplicated: list[str] = []
        self._ended_twice: dict[str, str] = {}
        self._lock = threading.Lock()
        self._before = {str(job["id"]) for job in self.listed()}

    def accept(self, job_id: str, key: str = "") -> str:
        """Note a promise; the same key with two jobs is a duplicate."""
        with self._lock:
            self.accepted.setdefault(job_id, key)
            if key and self.job_of.setdefault(key, job_id) != job_id:
                self._duplicated.append(f"key {key} made {self.job_of[key]} and {job_id}")
        return job_id

    def saw(self, job: dict[str, object]) -> None:
        """Note a job as it was read; once it has ended it must be read like that for ever."""
        if job["status"] not in TERMINAL or job["id"] in self._before:
            return
        seen = {name: job[name] for name in _LASTING} | ({"result": _digest(job["result"])} if "result" in job else {})
        with self._lock:
            self._ended_at.setdefault(str(job["id"]), time.monotonic())
            first = self._ended.setdefault(str(job["id"]), seen)
            changes = [
                f"{name} {first[name]} -> {seen[name]}"
                for name in seen
                if first.setdefault(name, seen[name]) != seen[name]
            ]
            if changes:
                self._ended_twice.setdefault(str(job["id"]), f"{job['id']} ended twice: {', '.join(changes)}")

    def submit(self, photo: bytes, kind: str = "search", *, key: str = "", **options: object) -> str:
        """Send a photo that must be accepted, if not at once: a 429 says when to come back; returns the job's id."""
        headers = self.headers | ({"Idempotency-Key": key} if key else {})
        give_up_at = time.monotonic() + _PATIENCE_S
        while True:
            answer = requests.post(
                f"{self.url}/v1/jobs/{kind}", files={"image": photo}, data=options, headers=headers, timeout=30
            )
            if answer.status_code != 429 or time.monotonic() > give_up_at:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.status_code in (200, 202), answer.text
        return self.accept(answer.json()["id"], key)

    def read(self, job_id: str, wait_s: float = 0) -> dict[str, object]:
        """One job."""
        answer = requests.get(
            f"{self.url}/v1/jobs/{job_id}", params={"wait": wait_s}, headers=self.headers, timeout=wait_s + 30
        )
        answer.raise_for_status()
        job: dict[str, object] = answer.json()
        self.saw(job)
        return job

    def listed(self) -> list[dict[str, object]]:
        """The list of jobs, all its pages."""
        jobs: list[dict[str, object]] = []
        cursor = None
        while True:
            query = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            answer = requests.get(f"{self.url}/v1/jobs", params=query, headers=self.headers, timeout=30)
            answer.raise_for_status()
            jobs += answer.json()["jobs"]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                return jobs

    @property
    def n_open(self) -> int:
        """Accepted jobs that nobody has seen ended yet."""
        return sum(job_id not in self._ended for job_id in list(self.accepted))

    def by_status(self) -> Counter[str]:
        """Jobs seen ended."""
        return Counter(str(job["status"]) for job in list(self._ended.values()))

    def saw_end(self, job_id: str) -> bool:
        """Whether anybody has seen a job's end."""
        return job_id in self._ended

    def told_to(self, headers: Mapping[str, str]) -> list[str]:
        """Ids of some jobs of late that somebody else is told."""
        some = list(self.accepted)[-_TRIED:]
        tried = {i: requests.get(f"{self.url}/v1/jobs/{i}", headers=headers, timeout=30) for i in some}
        return [job_id for job_id, answer in tried.items() if answer.status_code != 404]

    def failures(self) -> Counter[str]:
        """Jobs seen failed, by the code of their error."""
        errors = [job["error"] for job in list(self._ended.values()) if job["status"] == "failed"]
        return Counter(str(error["code"]) for error in errors if isinstance(error, dict))

    def open(self) -> list[str]:
        """Accepted ids that have no terminal state yet."""
        for job in self.listed() if self.n_open else []:
            self.saw(job)
        return [job_id for job_id in list(self.accepted) if job_id not in self._ended]

    def audit(self, within_s: float) -> Audit:
        """Wait until everything accepted has ended, read it again, and compare with every time it was read before."""
        deadline = time.monotonic() + within_s
        while self.open() and time.monotonic() < deadline:
            time.sleep(0.1)
        audit = Audit(lost=self.open())
        ended = [job_id for job_id in self.accepted if job_id in self._ended]
        kept = [job_id for job_id in ended if time.monotonic() - self._ended_at[job_id] < self._kept_s]
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(self.read, kept[:: len(kept) // _READ_WHOLE + 1]))
        jobs = {str(job["id"]): job for job in self.listed()}
        times_listed = Counter(str(job["id"]) for job in self.listed())
        for job in jobs.values():
            self.saw(job)
        known = self.accepted.keys() | self._before
        audit.by_status = Counter(str(self._ended[job_id]["status"]) for job_id in ended)
        audit.duplicated = [
            *self._duplicated,
            *self._ended_twice.values(),
            *(f"{job_id} is listed {n} times" for job_id, n in times_listed.items() if n != 1),
            *(f"{job_id} is not listed" for job_id in kept if job_id not in times_listed),
            *(
                f"{i} is nobody's: {job['kind']} {job['priority']} {job['status']}"
                for i, job in jobs.items()
                if i not in known
            ),
            *(
                f"{i} was attempted {jobs[i]['attempt']} times"
                for i in ended
                if i in jobs and int(str(jobs[i]["attempt"])) > self._max_attempts
            ),
        ]
        return audit

    def settle(self, within_s: float = 60, *, statuses: frozenset[str] = frozenset({"succeeded"})) -> None:
        """What every fault ends with: P1 and P2 over everything accepted, and that it ended as the test expects."""
        audit = self.audit(within_s)
        assert audit.lost == [], f"not ended within {within_s} s: {[self.read(job_id) for job_id in audit.lost[:3]]}"
        assert audit.duplicated == []
        assert set(audit.by_status) <= statuses, audit.by_status
        assert audit.by_status.total() == len(self.accepted) > 0


def _digest(result: object) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]
