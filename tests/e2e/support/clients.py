"""Clients that keep accounts: every submit is repeated under its key until it is answered, and goes into the ledger."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import requests

from tests.e2e.support.ledger import TERMINAL, Ledger

_AGAIN_S = 0.3
_PATIENCE_S = 20.0
_ANSWERED = (200, 202)
_COME_BACK = (409, 429, 503)

Check = Callable[[int, dict[str, object], float], str | None]

# How often each kind of call is made.
SEARCHES = {"search": 1}
MIXED = {"search": 52, "embed": 24, "by_id": 6, "batch": 4, "cancel": 6, "deadline": 4, "again": 4}


class Clients:
    """Threads that submit at a steady pace between `with` and its end.

    Args:
        per_s: submits a second, of all threads together; fewer while the service is slow.
        mix: calls by weight.
        follow: poll each job until it ends, and measure how long that took.
        check: of a search of a photo that ended: called with the photo's number, the job, and when it was not sent yet;
            returns what is wrong with it.

    Attributes:
        refused: answers that were no acceptance, by status code, and missing answers, by exception.
        errors: answers that no fault explains.
        latencies_s: from the first try of a submit to the end of its job.
        slowest_answer_s: of any submit.
    """

    def __init__(
        self,
        ledger: Ledger,
        photos: Sequence[bytes],
        *,
        per_s: float = 25,
        n_threads: int = 6,
        mix: Mapping[str, int] = SEARCHES,
        follow: bool = False,
        seed: int = 17,
        image_ids: Sequence[str] = (),
        check: Check | None = None,
    ) -> None:
        self.ledger = ledger
        self.refused: Counter[str] = Counter()
        self.errors: list[str] = []
        self.latencies_s: list[float] = []
        self.slowest_answer_s = 0.0
        self._photos = photos
        self._image_ids = image_ids
        self._pause_s = n_threads / per_s
        self._follow = follow
        self._check = check
        self._rng = random.Random(seed)
        self._name = f"{seed}-{time.time_ns()}"
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._mix = mix
        self._calls: dict[str, Callable[[str, bytes], object]] = {
            "search": lambda key, photo: self._one(key, "search", photo),
            "embed": lambda key, photo: self._one(key, "embed", photo, encoding="base64"),
            "by_id": self._by_id,
            "batch": self._batch,
            "cancel": self._cancel,
            "deadline": lambda key, photo: self._one(key, "search", photo, deadline_s=self._rng.uniform(0.05, 3)),
            "again": self._again,
        }
        self._threads = [threading.Thread(target=self._run, name=f"client-{n}") for n in range(n_threads)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    # --- one thread ---

    def _run(self) -> None:
        names, weights = list(self._mix), list(self._mix.values())
        while not self._stopping.is_set():
            due = time.monotonic() + self._pause_s * self._rng.uniform(0.5, 1.5)
            number = next(self._numbers)
            try:
                self._calls[self._rng.choices(names, weights)[0]](
                    f"{self._name}-{number}", self._photos[number % len(self._photos)]
                )
            except Exception as exc:
                self.errors.append(repr(exc))
            self._stopping.wait(max(0, due - time.monotonic()))

    def _send(self, path: str, key: str, *, method: str = "POST", **content: object) -> dict[str, object]:
        """Submit until it is answered; refusals and broken connections are counted and tried again."""
        while True:
            began = time.monotonic()
            try:
                answer = requests.request(
                    method,
                    self.ledger.url + path,
                    headers=self.ledger.headers | {"Idempotency-Key": key},
                    timeout=60,
                    **content,  # type: ignore[arg-type]
                )
                body: dict[str, object] = answer.json()
            except (requests.RequestException, ValueError) as exc:
                self.refused[type(exc).__name__] += 1
            else:
                self.slowest_answer_s = max(self.slowest_answer_s, time.monotonic() - began)
                if answer.status_code in _ANSWERED:
                    return body
                self.refused[str(answer.status_code)] += 1
                if answer.status_code not in _COME_BACK:
                    raise AssertionError(f"{path}: {answer.status_code} {answer.text}")
            time.sleep(_AGAIN_S)

    def _one(self, key: str, kind: str, photo: bytes, **options: object) -> str:
        began = time.monotonic()
        job = self._send(f"/v1/jobs/{kind}", key, files={"image": photo}, data=options)
        job_id = self.ledger.accept(str(job["id"]), key)
        if self._follow and (ended := self._wait(job_id, began)) and self._check and kind == "search":
            number = int(key.rpartition("-")[2]) % len(self._photos)
            if complaint := self._check(number, ended, began):
                self.errors.append(complaint)
        return job_id

    def _by_id(self, key: str, _photo: bytes) -> None:
        job = self._send("/v1/jobs/search", key, json={"image_id": self._rng.choice(self._image_ids), "k": 10})
        self.ledger.accept(str(job["id"]), key)

    def _batch(self, key: str, photo: bytes) -> None:
        photos = [photo, *self._rng.sample(list(self._photos), 2)]
        batch = self._send("/v1/batches", key, files=[("image", (str(n), part)) for n, part in enumerate(photos)])
        items = batch["items"]
        assert isinstance(items, list)
        for item in items:
            if "job" in item["links"]:
                self.ledger.accept(item["links"]["job"].rpartition("/")[2], f"{key}/{item['custom_id']}")

    def _cancel(self, key: str, photo: bytes) -> None:
        job = self._send("/v1/jobs/embed", key, files={"image": photo}, data={"priority": "bulk", "encoding": "base64"})
        job_id = self.ledger.accept(str(job["id"]), key)
        try:
            answer = requests.post(
                f"{self.ledger.url}/v1/jobs/{job_id}/cancel", headers=self.ledger.headers, timeout=60
            )
        except requests.RequestException:
            return  # whether it was heard is not known, and does not matter to the ledger
        if answer.status_code not in (*_ANSWERED, *_COME_BACK):
            raise AssertionError(f"cancel: {answer.status_code} {answer.text}")

    def _again(self, key: str, photo: bytes) -> None:
        """What a client does whose answer got lost though the job was accepted."""
        assert self._one(key, "search", photo) == self._one(key, "search", photo)

    def _wait(
        self, job_id: str, began: float | None = None, *, patience_s: float = _PATIENCE_S
    ) -> dict[str, object] | None:
        """The job at its end, and note how long that took since it began to be sent; None: it has not come yet."""
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            try:
                if (job := self.ledger.read(job_id, wait_s=2))["status"] in TERMINAL:
                    if began is not None:
                        self.latencies_s.append(time.monotonic() - began)
                    return job
            except (requests.RequestException, ValueError):
                time.sleep(_AGAIN_S)
        return None
