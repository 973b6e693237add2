"""What is compared: this service, and stock Celery in three of its usual settings."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import redis
import urllib3
from PIL import Image

from tests.benchmarks.ledger.celery_app import Setting
from tests.benchmarks.support import sleeping_worker
from tests.benchmarks.support.installation import UNCACHED
from tests.e2e.conftest import environment
from tests.e2e.support.ledger import TERMINAL

N_WORKERS = 2  # processes, each with one job at a time
_RESULT_TTL_S = 86_400  # Celery's own
_SIDE_PX = 64


class Answer(StrEnum):
    """What a submit is answered."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # nothing was accepted
    IN_DOUBT = "in_doubt"  # the job may be accepted or not


@dataclass(frozen=True)
class Terms:
    """What is the same for every system.

    Attributes:
        sleep_s: how long a job takes.
        lost_after_s: a worker silent for so long loses its jobs: our lease, Celery's visibility timeout.
    """

    valkey: str
    host: str
    port: int
    journal: Path
    sleep_s: float
    lost_after_s: float


@dataclass(frozen=True)
class Command:
    """What starts a part, and its environment."""

    arguments: list[str]
    env: Mapping[str, str]


class System(Protocol):
    """One way of running jobs behind HTTP."""

    @property
    def name(self) -> str: ...

    @property
    def keeps_outcomes(self) -> bool:
        """Whether it records how a job ended."""

    def api(self, terms: Terms) -> Command: ...

    def worker(self, terms: Terms) -> Command: ...

    def submit(self, http: urllib3.PoolManager, url: str, key: str, number: int) -> tuple[Answer, str]:
        """Send a job; the same key is the same job. Returns the answer and the job's address if it is accepted."""

    def outcome(self, http: urllib3.PoolManager, url: str) -> str | None:
        """How the job at this address ended, in a form that is another if it ends again; None: not, or not known."""

    def undelivered(self, valkey: redis.Redis) -> set[str]:
        """Keys of jobs that the broker still holds."""


class Lookalike:
    """This service, embedding photos of one colour with a model that sleeps; the colour is the job's number."""

    name = "lookalike"
    keeps_outcomes = True

    def __init__(self, home: Path) -> None:
        self._home = home

    def api(self, terms: Terms) -> Command:
        return Command(
            ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"], self._environment(terms)
        )

    def worker(self, terms: Terms) -> Command:
        sleeper = ["-m", sleeping_worker.__name__, str(1e3 * terms.sleep_s), "1", str(terms.journal)]
        return Command(sleeper, self._environment(terms))

    def submit(self, http: urllib3.PoolManager, url: str, key: str, number: int) -> tuple[Answer, str]:
        photo = io.BytesIO()
        Image.new("RGB", (_SIDE_PX, _SIDE_PX), tuple(number.to_bytes(3, "big"))).save(photo, "PNG")
        answer = http.request(
            "POST",
            f"{url}/v1/jobs/embed?encoding=base64",
            fields={"image": ("photo.png", photo.getvalue(), "image/png")},
            headers={"Idempotency-Key": key},
        )
        body = json.loads(answer.data)
        if answer.status in (200, 202):
            return Answer.ACCEPTED, f"{url}/v1/jobs/{body['id']}"
        if answer.status not in (409, 429, 503):
            raise RuntimeError(f"{self.name}: {answer.status} {answer.data.decode()}")
        return (Answer.IN_DOUBT if body["code"] == "acceptance_unknown" else Answer.REFUSED), ""

    def outcome(self, http: urllib3.PoolManager, url: str) -> str | None:
        answer = http.request("GET", url)
        job = json.loads(answer.data)
        if answer.status != 200 or job["status"] not in TERMINAL:
            return None
        return f"{job['status']} {job['attempt']} {job['finished_at']}"

    def undelivered(self, valkey: redis.Redis) -> set[str]:
        return set()  # whatever has not ended is lost

    def _environment(self, terms: Terms) -> dict[str, str]:
        return environment(
            self._home,
            redis_url=terms.valkey,
            host=terms.host,
            port=terms.port,
            published_elsewhere=True,
            lease_s=terms.lost_after_s,
            result_ttl_s=_RESULT_TTL_S,
            **UNCACHED,
        )


@dataclass(frozen=True)
class StockCelery:
    """Celery's prefork pool with one process a worker, behind Flask on the same server as ours."""

    name: str
    acks_late: bool
    keeps_outcomes: bool

    def api(self, terms: Terms) -> Command:
        bind = ["--bind", f"{terms.host}:{terms.port}", "--worker-class", "gevent", "--log-level", "warning"]
        return Command(
            ["-m", "gunicorn", *bind, "tests.benchmarks.ledger.celery_app:flask_app()"], self._environment(terms)
        )

    def worker(self, terms: Terms) -> Command:
        return Command(["-m", "tests.benchmarks.ledger.celery_app", "--concurrency=1"], self._environment(terms))

    def submit(self, http: urllib3.PoolManager, url: str, key: str, number: int) -> tuple[Answer, str]:
        answer = http.request("PUT", f"{url}/jobs/{key}", body=str(number))
        if answer.status == 202:
            return Answer.ACCEPTED, f"{url}/jobs/{key}"
        if answer.status != 503:
            raise RuntimeError(f"{self.name}: {answer.status} {answer.data.decode()}")
        return Answer.IN_DOUBT, ""

    def outcome(self, http: urllib3.PoolManager, url: str) -> str | None:
        answer = http.request("GET", url)
        job = json.loads(answer.data) if answer.status == 200 else {"status": "PENDING"}
        return f"{job['status']} {job['finished_at']}" if job["status"] in ("SUCCESS", "FAILURE") else None

    def undelivered(self, valkey: redis.Redis) -> set[str]:
        everything = f"{valkey.lrange('celery', 0, -1)} {valkey.hvals('unacked')}"
        return set(re.findall(r"correlation_id\W+([\w-]+)", everything))

    def _environment(self, terms: Terms) -> dict[str, str]:
        setting = Setting(
            broker=terms.valkey,
            journal=str(terms.journal),
            sleep_s=terms.sleep_s,
            acks_late=self.acks_late,
            results=self.keeps_outcomes,
            visibility_timeout_s=terms.lost_after_s,
        )
        return {**environment(Path()), **setting.environment()}


CELERY = (
    StockCelery("celery, early ack", acks_late=False, keeps_outcomes=False),
    StockCelery("celery, late ack", acks_late=True, keeps_outcomes=False),
    StockCelery("celery, late ack, results", acks_late=True, keeps_outcomes=True),
)
