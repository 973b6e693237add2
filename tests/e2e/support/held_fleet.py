"""A fleet with one worker, `held`, whose jobs stop before the model for as long as a test says."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import requests

from shared.jobs.contract import JobKind
from shared.jobs.store import JobStore
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.held_worker import HELD, PAUSE


class HeldFleet(Fleet):
    """An API, and one worker whose jobs stop where the test says."""

    held: Path

    def hold(self, *what: str) -> None:
        """Stop `photos` or `shards` before the model."""
        for one in what:
            (self.held / f"{one}-{socket.gethostname()}").touch()

    def release(self) -> None:
        for file in self.held.iterdir():
            file.unlink()

    def submit(self, kind: JobKind, photo: Path | None = None, **options: object) -> str:
        given: dict[str, Any] = (
            {"files": {"image": photo.read_bytes()}, "data": options} if photo else {"json": options}
        )
        answer = requests.post(f"{self.url}/v1/jobs/{kind}", timeout=10, **given)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def status(self, job_id: str) -> str:
        with self.client() as client:  # shards are in nobody's list
            return JobStore(client).get(job_id).status.value

    def n_running(self) -> int:
        with self.client() as client:
            return int(client.zcard("lookalike:running"))


@contextmanager
def held_fleet(home: Path, catalogue: Path, directory: Path, **settings: object) -> Iterator[HeldFleet]:
    """One over copies of installation and catalogue; nothing is started yet but Valkey."""
    fleet = HeldFleet.over_copies(home, catalogue, directory, lease_s=4, probe_every_s=0, **settings)
    fleet.held = directory / "held"
    fleet.held.mkdir()
    with mock.patch.dict(os.environ, {HELD: str(fleet.held), PAUSE: "0"}):
        try:
            yield fleet
        finally:
            fleet.close()
