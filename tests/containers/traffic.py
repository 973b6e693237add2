"""Searches, one a second, while containers are killed and replaced: what became of each of them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import requests

from lookalike import Client, LookalikeError
from shared.jobs.contract import JobStatus

_EVERY_S = 1.0
_AT_ONCE = 40  # so that none waits for another, even if all wait as long as they may
_ANSWER_WITHIN_S = 30
_SETTLED_WITHIN_S = 60


@dataclass
class Account:
    """What became of the searches that were sent in one span of time.

    Attributes:
        refused: by plain HTTP: no connection, a connection that broke, or an answer of 429 or 5xx.
        lost: accepted by the service, and not done a minute later.
        wrong: answered with another photo than the one that was sent.
        client: what the Python client raised; it repeats what is refused.
    """

    sent: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    client: list[str] = field(default_factory=list)
    slowest_s: float = 0
    client_slowest_s: float = 0

    @property
    def passed(self) -> bool:
        return not (self.lost or self.wrong or self.client)

    def __str__(self) -> str:
        return (
            f"{self.refused} of {self.sent} refused, {len(self.lost)} lost, {len(self.wrong)} wrong, slowest "
            f"{self.slowest_s:.1f} s; client: {len(self.client)} failed, slowest {self.client_slowest_s:.1f} s"
        )


class Traffic:
    """One search a second over plain HTTP and one through the Python client, from entering to leaving.

    Args:
        url: of the service.
        photos: of its catalogue, which a search must find first.
    """

    def __init__(self, url: str, photos: list[Path]) -> None:
        self._url, self._photos = url, photos
        self._client = Client(url, timeout_s=_SETTLED_WITHIN_S)
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.account = Account()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()
        self._client.close()

    def _send(self) -> None:
        due, n = time.monotonic(), 0
        while not self._stop.wait(max(0, due - time.monotonic())):
            photo = self._photos[n % len(self._photos)]
            self._pool.submit(self._timed, self._ask_plainly, photo, "slowest_s")
            self._pool.submit(self._timed, self._ask_by_client, photo, "client_slowest_s")
            due, n = due + _EVERY_S, n + 1

    def _timed(self, ask: Callable[[Path], None], photo: Path, slowest: str) -> None:
        began = time.monotonic()
        ask(photo)
        with self._lock:
            setattr(self.account, slowest, max(getattr(self.account, slowest), time.monotonic() - began))

    def _ask_plainly(self, photo: Path) -> None:
        with self._lock:
            self.account.sent += 1
        try:
            answer = requests.post(
                f"{self._url}/v1/jobs/search",
                files={"image": photo.read_bytes()},
                headers={"Prefer": "wait=25"},
                timeout=_ANSWER_WITHIN_S,
            )
        except requests.RequestException:
            answer = None
        if answer is None or answer.status_code == 429 or answer.status_code >= 500:
            with self._lock:
                self.account.refused += 1
            return
        job = answer.json()
        if not JobStatus(job["status"]).terminal:
            job = self._settled(job)
        if job["status"] != "succeeded":
            self.account.lost.append(str(job))
        elif job["result"]["neighbours"][0]["image_id"] != photo.stem:
            self.account.wrong.append(str(job))

    def _settled(self, job: dict[str, str]) -> dict[str, str]:
        """The job once it has ended, or as it is after a minute."""
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            try:
                answer = requests.get(
                    f"{self._url}/v1/jobs/{job['id']}", headers={"Prefer": "wait=10"}, timeout=_ANSWER_WITHIN_S
                )
                if answer.ok and JobStatus((job := answer.json())["status"]).terminal:
                    break
            except requests.RequestException:
                pass
            time.sleep(_EVERY_S)
        return job

    def _ask_by_client(self, photo: Path) -> None:
        try:
            found = self._client.search(photo).neighbours[0].image_id
        except LookalikeError as exc:
            self.account.client.append(repr(exc))
        else:
            if found != photo.stem:
                self.account.wrong.append(f"client: {photo.stem}, not {found}")
