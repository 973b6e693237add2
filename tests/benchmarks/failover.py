"""What a failover of Redis loses of what was accepted, and what it costs to lose less: hosts of their own, as root.

    python -m tests.benchmarks.failover [--rounds 5] [--quick]

A primary, its replica, three Sentinels; threads that submit searches with their photos, as an API does, at a steady
pace or as fast as they can. The primary's host goes dark and is started again once the replica is elected, or it is cut
off together with who submits. What was accepted and is then unknown to the new primary is lost. Nothing is asserted.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from shared.jobs.contract import JobKind, SearchRequest
from shared.jobs.store import JobStore
from tests.benchmarks.support.report import Report
from tests.benchmarks.unit_costs import NO_LIMIT
from tests.e2e.support.netns import Host, Network
from tests.e2e.support.site import REDIS, Site, until

_THREADS = 4
_PIXELS = bytes(224 * 224 * 3)
_PACES = (50.0, 1e6)  # a second, all threads together
_SUBMIT_S = 3.0
_ISLAND_S = 12.0
_FAILOVER_WITHIN_S, _BACK_WITHIN_S = 40, 90
_LAG = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2"}


@dataclass(frozen=True)
class Mode:
    """How the servers are set, and whether a submit waits for the replica."""

    name: str
    config: dict[str, str] = field(default_factory=dict)
    wait: bool = False


MODES = (
    Mode("as they come, appendfsync everysec"),
    Mode("min-replicas-to-write 1, max-lag 2", _LAG),
    Mode("appendfsync always", {"appendfsync": "always"}),
    Mode("LOOKALIKE_REDIS_REPLICAS=1", wait=True),
)


@dataclass
class Submitted:
    """Ids by the time they were accepted at, and how long each submit took."""

    accepted: list[tuple[float, str]] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    refused: int = 0


def main() -> None:
    """Print tables; write `var/bench/failover.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of one mode")
    given = parser.parse_args()
    rounds, modes, paces = (1, MODES[:1], _PACES[:1]) if given.quick else (given.rounds, MODES, _PACES)
    report = Report("failover", rounds=rounds, threads=_THREADS)
    for pace in paces:
        for mode in modes:
            dark = [_round(mode, pace, island=False) for _ in range(rounds)]
            _add(report, "the primary's host goes dark", mode, dark)
    for mode in modes:
        stranded = [_round(mode, _PACES[0], island=True)]
        _add(report, f"it is cut off for {_ISLAND_S:.0f} s, together with who submits", mode, stranded)
    report.finish()


@dataclass(frozen=True)
class _Round:
    per_s: float
    submit_s: float
    lost: int
    window_s: float
    away_s: float


def _add(report: Report, table: str, mode: Mode, rounds: list[_Round]) -> None:
    report.add(
        table,
        mode=mode.name,
        submits_per_s=statistics.median(each.per_s for each in rounds),
        submit_ms=1e3 * statistics.median(each.submit_s for each in rounds),
        lost_median=statistics.median(each.lost for each in rounds),
        lost_most=max(each.lost for each in rounds),
        window_ms_most=1e3 * max(each.window_s for each in rounds),
        accepted_again_after_s=statistics.median(each.away_s for each in rounds),
    )


def _round(mode: Mode, pace: float, *, island: bool) -> _Round:
    with tempfile.TemporaryDirectory() as scratch, Network() as network:
        site = Site(network, Path(scratch))
        client = site.hosts["client"]
        with client.inside():
            site.start_all_redis()
            for name in REDIS:
                with site.data_node(name) as node:
                    for option, value in mode.config.items():
                        node.config_set(option, value)
        old = site.hosts[REDIS[0]]
        with _submitting(site, mode, pace, site.hosts["worker-1"] if island else client) as submitted:
            time.sleep(_SUBMIT_S)
            if island:
                for host in (old, site.hosts["worker-1"]):
                    host.plug_in(island=1)
            else:
                old.lose_power()
            cut_at = time.time()
            with client.inside():
                until(lambda: site.primary() == REDIS[1], _FAILOVER_WITHIN_S, "the replica is elected")
            if island:
                time.sleep(max(0.0, cut_at + _ISLAND_S - time.time()))
            else:
                with client.inside():  # some modes accept nothing until there is a replica again
                    old.boot()
                    site.start_redis(REDIS[0])
                until(lambda: submitted.accepted[-1][0] > cut_at + 0.5, _BACK_WITHIN_S, "jobs are accepted")
                again_at = next(at for at, _ in submitted.accepted if at > cut_at + 0.5)
        if island:
            again_at = cut_at
        with client.inside(), site.open_redis() as primary:
            known = primary.pipeline(transaction=False)
            for _, job_id in submitted.accepted:
                known.exists(f"lookalike:gone:{job_id}")
            lost = [at for (at, _), there in zip(submitted.accepted, known.execute(), strict=True) if not there]
    before = [at for at, _ in submitted.accepted if at <= cut_at]
    return _Round(
        per_s=len(before) / _SUBMIT_S,
        submit_s=statistics.median(submitted.took_s[: len(before)]),
        lost=len(lost),
        window_s=max(lost) - min(lost) if lost else 0.0,
        away_s=again_at - cut_at,
    )


@contextmanager
def _submitting(site: Site, mode: Mode, pace: float, host: Host) -> Iterator[Submitted]:
    submitted, stopping, pause_s = Submitted(), threading.Event(), _THREADS / pace

    def submit() -> None:
        client = site.open_redis()
        store = JobStore(client)
        while not stopping.wait(pause_s):
            began = time.perf_counter()
            try:
                job = store.create(JobKind.SEARCH, SearchRequest(), _PIXELS, admission=NO_LIMIT).job
                if mode.wait and not store.replicated(1):
                    submitted.refused += 1
                    continue
            except redis.RedisError:
                submitted.refused += 1
                time.sleep(0.02)
            else:
                submitted.took_s.append(time.perf_counter() - began)
                submitted.accepted.append((time.time(), job.id))
        client.close()

    with host.inside():
        threads = [threading.Thread(target=submit) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
    try:
        yield submitted
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
