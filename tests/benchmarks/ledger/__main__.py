"""The ledger: the same short jobs and the same kills through this service and through stock Celery.

    python -m tests.benchmarks.ledger [--jobs 100000] [--kills 200] [--rtt-ms 0 2] [--systems lookalike] [--quick]

Two workers, an API and a Valkey that writes each change to disk before it answers. Each of the three parts is killed
with SIGKILL at the same jobs' numbers in every system, and started again after a second. Jobs sleep, and leave a line
in a file when they begin and when they end. docs/reliability.md says what is counted. Nothing is asserted but that
this service loses no job and ends none twice.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.settings import Backbone
from tests.benchmarks.ledger.account import Account, Kill
from tests.benchmarks.ledger.clients import N_CLIENTS, Clients
from tests.benchmarks.ledger.journal import Journal, Runs
from tests.benchmarks.ledger.parts import Parts, Place, ThisHost
from tests.benchmarks.ledger.slow_network import SlowNetwork, why_not
from tests.benchmarks.ledger.systems import CELERY, N_WORKERS, Lookalike, System, Terms
from tests.benchmarks.support.installation import installed
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.ports import free_port

_WORKERS = [f"worker-{number}" for number in range(1, N_WORKERS + 1)]
_PARTS = ("worker", "api", "valkey")
_HOSTS = ("client", "api", "valkey", *_WORKERS)
# The first kill and the last, as parts of all jobs.
_CALM, _LAST = 0.2, 0.98
_READY_WITHIN_S = 120
# Celery looks for messages whose visibility timeout is over some 10 s after a start, and from then on every 100 s.
_SWEEP_S, _FIRST_SWEEP_S = 100.0, 10.0
_SLACK_S = 10.0


def main() -> int:
    """Print tables; write `var/bench/ledger.json`. Returns 1 if this service lost a job or ended one twice."""
    given = _options()
    report = Report(
        "ledger",
        jobs=given.jobs,
        kills=given.kills,
        workers=N_WORKERS,
        clients=N_CLIENTS,
        job_ms=given.sleep_ms,
        lost_after_s=given.lost_after_s,
        seed=given.seed,
    )
    systems: list[System] = [Lookalike(installed(Backbone.EFFICIENTNET_LITE0)), *CELERY]
    chosen = [system for system in systems if system.name in given.systems]
    chosen = chosen or [system for system in systems if system.name.startswith(tuple(given.systems))]
    if not chosen:
        print(f"no system of that name; there are: {', '.join(system.name for system in systems)}", file=sys.stderr)
        return 2
    broken = False
    for rtt_ms in given.rtt_ms:
        if rtt_ms and (reason := why_not()):
            print(f"no hosts with a round trip of {rtt_ms} ms: {reason}", file=sys.stderr)
            continue
        for system in chosen:
            began = time.monotonic()
            with _place(rtt_ms) as place, tempfile.TemporaryDirectory() as scratch:
                account, runs = run_under_kills(
                    system, place, Path(scratch), schedule(given.jobs, given.kills, given.seed), given.jobs,
                    sleep_s=given.sleep_ms / 1e3, lost_after_s=given.lost_after_s, patience_s=given.patience_s,
                )  # fmt: skip
            named = {"system": system.name, "rtt_ms": rtt_ms}
            row = account.row(runs)
            broken |= isinstance(system, Lookalike) and bool(row["lost"] or row["ended_twice"])
            report.add("ledger", **named, **row)
            for each in account.recoveries(runs):
                report.add("time to recover", **named, **each)
            print(f"{system.name}, {rtt_ms} ms: {row}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    report.finish()
    return int(broken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=100_000, help="of each system")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rtt-ms", type=float, nargs="*", default=[0, 2], help="between hosts; 0: all on one")
    parser.add_argument("--sleep-ms", type=float, default=20, help="what a job does")
    parser.add_argument("--lost-after-s", type=float, default=15, help="our lease, Celery's visibility timeout")
    parser.add_argument("--systems", nargs="*", default=[""], help="names, or their beginnings")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--quick", action="store_true", help="60 jobs, a kill of each part, little patience")
    parser.add_argument("--patience-s", type=float, default=_SWEEP_S, help="beyond that, before workers start anew")
    given = parser.parse_args()
    if given.quick:
        given.jobs, given.kills, given.rtt_ms, given.lost_after_s, given.patience_s = 60, 3, [0], 4, 10
    return given


def schedule(n_jobs: int, n_kills: int, seed: int) -> list[tuple[int, str]]:
    """What is killed when so many jobs are accepted: the parts equally often, in any order, at any time."""
    rng = random.Random(seed)
    times = sorted(rng.uniform(_CALM, _LAST) * n_jobs for _ in range(n_kills))
    parts = [_PARTS[i % len(_PARTS)] for i in range(n_kills)]
    rng.shuffle(parts)
    names = [rng.choice(_WORKERS) if part == "worker" else part for part in parts]
    return [(int(at), name) for at, name in zip(times, names, strict=True)]


def run_under_kills(
    system: System,
    place: Place,
    scratch: Path,
    kills: Sequence[tuple[int, str]],
    n_jobs: int,
    *,
    sleep_s: float,
    lost_after_s: float,
    patience_s: float,
) -> tuple[Account, Runs]:
    """Run jobs through a system while its parts are killed, wait for what can still end, and settle accounts."""
    journal = Journal(scratch / "journal")
    RESULTS.mkdir(parents=True, exist_ok=True)
    with Parts(place, scratch, RESULTS / "ledger.log") as parts:
        terms = Terms(parts.valkey, place.address("api"), free_port(), journal.path, sleep_s, lost_after_s)
        api, worker = system.api(terms), system.worker(terms)
        parts.start("api", "api", api.arguments, api.env)
        for name in _WORKERS:
            parts.start(name, name, worker.arguments, worker.env)
        clients = Clients(system, f"http://{terms.host}:{terms.port}", place, journal)
        try:
            clients.warm_up(N_WORKERS, _READY_WITHIN_S)
            running = clients.run(n_jobs)
            for n_accepted, name in kills:
                while len(clients.account.accepted) < n_accepted and not running.done():
                    time.sleep(0.002)
                clients.account.kills.append(Kill(name, parts.kill(name)))
            running.result()
            _drain(clients, parts, lost_after_s, patience_s)
            with place.inside("client"), parts.open_valkey() as valkey:
                clients.note_undelivered(valkey)
            clients.read_last()
        finally:
            clients.close()
    return clients.account, Runs.of(clients.lines)


def _drain(clients: Clients, parts: Parts, lost_after_s: float, patience_s: float) -> None:
    """Wait for jobs that are open; then start the workers anew, as an operator would, and wait once more."""
    if clients.wait_ended(clients.open, lost_after_s + patience_s + _SLACK_S):
        return
    stuck = clients.open
    for name in _WORKERS:
        parts.stop(name)
    clients.wait_ended(stuck, lost_after_s + _FIRST_SWEEP_S + _SLACK_S)
    clients.account.after_restart = len(stuck - clients.open)


@contextmanager
def _place(rtt_ms: float) -> Iterator[Place]:
    if not rtt_ms:
        yield ThisHost()
        return
    with SlowNetwork(_HOSTS, rtt_ms / 1e3) as network:
        yield network


if __name__ == "__main__":
    sys.exit(main())
