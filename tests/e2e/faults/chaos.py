"""Chaos: mixed load while parts are killed, frozen and replaced at random, and an account of every promise at the end.

`make chaos` runs it for MINUTES; part of `make test` in a version of half a minute. Redis writes each change to disk
before it answers, so that what is lost is lost by us.
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from pipeline.demo.catalogue import generate
from shared.artifacts.snapshots import index_store
from shared.progress import ReportProgress
from tests.e2e.conftest import eventually, lookalike
from tests.e2e.support.clients import MIXED, SEARCHES, Clients
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.ledger import Ledger
from tests.support.places import location_of
from tests.support.snapshots import rows_by_version, write_reversed

WORKERS = ("worker", "worker-2")
_LEASE_S = 6
_REPORT_EVERY_S = 10
_DRAIN_WITHIN_S = 120


@dataclass
class Report:
    """The account of one run."""

    accepted: int
    finished: Counter[str]
    lost: list[str]
    duplicated: list[str]
    errors: list[str]
    refused: Counter[str]
    latencies_s: list[float]
    faults: Counter[str]

    @property
    def passed(self) -> bool:
        return not (self.lost or self.duplicated or self.errors)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"accepted    {self.accepted}",
                f"finished    {_told(self.finished)}",
                f"lost        {len(self.lost)} {' '.join(self.lost[:10])}".rstrip(),
                f"duplicated  {len(self.duplicated)} {'; '.join(self.duplicated[:10])}".rstrip(),
                f"unexplained {len(self.errors)} {'; '.join(self.errors[:5])}".rstrip(),
                f"not taken   {_told(self.refused)}, each tried again until it was",
                f"latency     {_percentiles(self.latencies_s)}, outages included",
                f"faults      {_told(self.faults)}",
                "PASSED" if self.passed else "FAILED",
            ]
        )


class Supervisor(threading.Thread):
    """Starts again whatever has died; what is frozen is left alone."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._fleet = fleet
        self._rng = rng
        self._stopping = threading.Event()
        self.mending = threading.Lock()

    def run(self) -> None:
        while not self._stopping.wait(0.2):
            with self.mending:
                if not self._fleet.valkey_alive():
                    self._stopping.wait(self._rng.uniform(0, 3))
                    self._fleet.restart_valkey()
                for name in ("api", *WORKERS):
                    if not self._fleet.alive(name):
                        self._fleet.start(name)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Monkey:
    """Faults chosen at random; a frozen worker stays so while the next ones happen.

    Attributes:
        faults: how many of each kind.
        thaws: of frozen workers, to be waited for.
    """

    def __init__(self, fleet: Fleet, versions: Sequence[str], rng: random.Random) -> None:
        self.faults: Counter[str] = Counter()
        self.thaws: list[threading.Timer] = []
        self._fleet = fleet
        self._versions = versions
        self._rng = rng
        self._kinds: dict[Callable[[], None], int] = {
            self.kill_worker: 3,
            self.freeze_worker_past_its_lease: 2,
            self.freeze_then_kill_worker: 2,
            self.stop_worker: 2,
            self.kill_redis: 3,
            self.freeze_redis: 1,
            self.drop_clients_of_redis: 2,
            self.kill_api: 3,
            self.promote: 3,
        }

    def strike(self) -> None:
        fault = self._rng.choices(list(self._kinds), list(self._kinds.values()))[0]
        self.faults[fault.__name__] += 1
        fault()

    def kill_worker(self) -> None:
        self._fleet.kill(self._rng.choice(WORKERS))

    def freeze_worker_past_its_lease(self) -> None:
        frozen = self._fleet.processes[self._rng.choice(WORKERS)]
        frozen.send_signal(signal.SIGSTOP)
        thaw = threading.Timer(_LEASE_S + 3, frozen.send_signal, [signal.SIGCONT])
        thaw.start()
        self.thaws.append(thaw)

    def freeze_then_kill_worker(self) -> None:
        name = self._rng.choice(WORKERS)
        self._fleet.signal(name, signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.1, 1))
        self._fleet.kill(name)

    def stop_worker(self) -> None:
        self._fleet.signal(self._rng.choice(WORKERS), signal.SIGTERM)

    def kill_redis(self) -> None:
        self._fleet.signal_valkey(signal.SIGKILL)

    def freeze_redis(self) -> None:
        self._fleet.signal_valkey(signal.SIGSTOP)
        time.sleep(self._rng.uniform(1, 5))
        self._fleet.signal_valkey(signal.SIGCONT)

    def drop_clients_of_redis(self) -> None:
        with self._fleet.client() as client:
            for _ in range(3):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                time.sleep(0.5)

    def kill_api(self) -> None:
        self._fleet.kill("api")

    def promote(self) -> None:
        store = index_store(self._fleet.location)
        current = store.current()
        store.promote(self._rng.choice([version for version in self._versions if version != current]))


def soak(
    home: Path,
    directory: Path,
    photos: Sequence[bytes],
    *,
    duration_s: float,
    seed: int,
    report_progress: ReportProgress,
) -> Report:
    """Run the service of `home` under load and faults for so long, let it finish, and settle accounts.

    Args:
        home: an installation of its own; gets a second index version.
        directory: for Redis's log and that of the parts.
        photos: to send.
    """
    rng = random.Random(seed)
    versions = [*index_store(location_of(home)).versions(), write_reversed(location_of(home))]
    # Nothing is remembered, so that every photo costs a pass; a short lease, so that frozen workers lose theirs.
    fleet = Fleet(home, directory / "valkey", log=directory / "log", lease_s=_LEASE_S, cache_entries=0)
    try:
        fleet.man(len(WORKERS))
        ledger = Ledger(fleet.url)
        per_s = _capacity(ledger, photos) / 2
        report_progress(
            f"seed {seed}, capacity {2 * per_s:.0f} photos/s, offering {per_s:.0f}/s for {duration_s:.0f} s"
        )
        supervisor, monkey = Supervisor(fleet, rng), Monkey(fleet, versions, rng)
        image_ids = list(rows_by_version(fleet.location)[versions[0]])
        clients = Clients(
            ledger, photos, per_s=per_s, n_threads=12, mix=MIXED, follow=True, seed=seed, image_ids=image_ids
        )
        began = reported = time.monotonic()
        supervisor.start()
        with clients:
            while (elapsed_s := time.monotonic() - began) < duration_s:
                if time.monotonic() - reported >= _REPORT_EVERY_S:
                    reported = time.monotonic()
                    report_progress(_line(elapsed_s, ledger, clients, monkey))
                time.sleep(rng.uniform(1, 5))
                with supervisor.mending:  # so that no fault meets a part that is being started
                    monkey.strike()
            report_progress("no more faults; letting clients and workers finish")
        for thaw in monkey.thaws:
            thaw.join()
        eventually(lambda: requests.get(fleet.url + "/readyz", timeout=5).ok, 60, "the service is ready again")
        audit = ledger.audit(_DRAIN_WITHIN_S)
        supervisor.stop()
        return Report(
            accepted=len(ledger.accepted),
            finished=audit.by_status,
            lost=audit.lost,
            duplicated=audit.duplicated,
            errors=clients.errors,
            refused=clients.refused,
            latencies_s=clients.latencies_s,
            faults=monkey.faults,
        )
    finally:
        fleet.close()


def _capacity(ledger: Ledger, photos: Sequence[bytes]) -> float:
    """Photos a second with nothing broken and more clients than it can serve."""
    began = time.monotonic()
    with Clients(ledger, photos, per_s=10_000, n_threads=12, mix=SEARCHES, follow=True) as clients:
        time.sleep(3)
    return len(clients.latencies_s) / (time.monotonic() - began)


def _line(elapsed_s: float, ledger: Ledger, clients: Clients, monkey: Monkey) -> str:
    return (
        f"{elapsed_s:5.0f} s  accepted {len(ledger.accepted)}, open {ledger.n_open}, "
        f"ended {_told(ledger.by_status())}; "
        f"{_percentiles(clients.latencies_s[-500:])}; faults {monkey.faults.total()}"
    )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def _percentiles(latencies_s: list[float]) -> str:
    if len(latencies_s) < 2:
        return "p50 - p95 -"
    cuts = statistics.quantiles(latencies_s, n=20)
    return f"p50 {cuts[9]:.2f} s p95 {cuts[18]:.2f} s"


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak the service under load and random faults.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=17)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-chaos-") as name:
        directory = Path(name)
        generate(directory / "demo", n_listings=52)
        built = lookalike("index", "build", "--catalogue", str(directory / "demo"), home=directory / "home")
        if built.returncode:
            print(built.stderr, file=sys.stderr)
            return 1
        photos = [path.read_bytes() for path in sorted((directory / "demo" / "images").iterdir())]
        report = soak(
            directory / "home",
            directory,
            photos,
            duration_s=60 * asked.minutes,
            seed=asked.seed,
            report_progress=lambda line: print(line, flush=True),
        )
    print(report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
