"""Hosts whose clocks are a minute apart, or are put right while jobs run: no living job is reaped, none is lost."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.jobs.worker_registry import WorkerRegistry
from tests import ROOT
from tests.e2e.conftest import eventually
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.support.signals import send

SKEWS = ROOT / "tests/e2e/support/skew"


@pytest.fixture(scope="module")
def right(fleet: Fleet) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker whose clock is right, and whose lease is long enough to be frozen within."""
    if fleet.alive("worker"):
        fleet.kill("worker")
    yield fleet.start("worker", lease_s=15)
    fleet.kill("worker")


@pytest.mark.parametrize(
    ("ahead_s", "until_s"), [(60, "inf"), (-60, "inf"), (60, "12")], ids=["ahead", "behind", "step back"]
)
def test_a_worker_whose_clock_is_a_minute_off_reaps_nobody_and_is_reaped_by_nobody(
    fleet: Fleet,
    right: "subprocess.Popen[bytes]",
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    ahead_s: int,
    until_s: str,
) -> None:
    for name in ("worker-2", "api"):
        if fleet.alive(name):
            fleet.kill(name)
    with monkeypatch.context() as there:
        there.setenv("PYTHONPATH", str(SKEWS))
        there.setenv("SKEW_S", str(ahead_s))
        there.setenv("SKEW_UNTIL_S", until_s)
        other = fleet.start("worker-2", lease_s=15)
        fleet.start("api")  # its clock is the one that jobs are created by
    fleet.man(2)
    before = {name: fleet.logged(name) for name in ("job_requeued", "job_expired", "late_write_dropped")}
    ledger = Ledger(fleet.url)
    for part in (right, other):
        send(part, signal.SIGSTOP)
    for photo in photos[:40]:
        ledger.submit(photo.read_bytes(), deadline_s=45)
    fleet.freeze_holding(right)
    other.send_signal(signal.SIGCONT)
    with fleet.client() as client:  # it looks for jobs of dead workers while the first one holds some
        registry = WorkerRegistry(client)
        frozen_at = registry.now()
        eventually(
            lambda: max(w.reported_at for w in registry.live() if w.pid == other.pid) > frozen_at + 2,
            12,
            "the heart of the other worker beats",
        )
    right.send_signal(signal.SIGCONT)
    ledger.settle(40)
    assert {name: fleet.logged(name) for name in before} == before
    jobs = [ledger.read(job_id) for job_id in ledger.accepted]
    assert {job["attempt"] for job in jobs} == {1}
    assert all(0 <= job["result"]["timing_ms"]["queued"] < 40_000 for job in jobs)  # type: ignore[index]
    for name in ("worker-2", "api"):
        fleet.kill(name)
