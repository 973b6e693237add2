"""How a fleet of 1 to 200 workers behaves, from what one of everything costs: queueing, a reindex, deaths, Redis.

    python -m tests.benchmarks.simulate [--backbone efficientnet_lite0]   measure unit costs, then simulate
    python -m tests.benchmarks.simulate --check        real workers whose model only sleeps, against the simulation
    python -m tests.benchmarks.simulate --costs        only what 10 M and 1 B photos cost

Each worker has cores and a model of its own, as this machine's; Redis is one. The simulation is `fleet_model.py`.
"""

import argparse
import statistics
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import redis

from shared.jobs.celery_config import make_celery
from shared.jobs.dispatcher import Dispatcher
from shared.jobs.store import JobStore
from shared.model.backbones import EMBEDDING_DIM
from shared.settings import Backbone
from tests.benchmarks.catalogue_costs import add_costs, measure_photo
from tests.benchmarks.store_costs import measure_store
from tests.benchmarks.support import sleeping_worker
from tests.benchmarks.support.fleet_model import Costs, Fleet, Load, Outcome, Simulation
from tests.benchmarks.support.installation import add_workers, installed, serving
from tests.benchmarks.support.report import Report
from tests.benchmarks.unit_costs import fill, measure, wait_drained
from tests.e2e.conftest import eventually

_WORKERS = (1, 2, 4, 8, 16, 32, 64, 100, 200)
_SECONDS = 30.0  # at least; longer where fewer would die than _DEATHS
_DEATHS = 4
_BUSY = 0.4  # of what the models can do, asked for by people; the reindex takes the rest
_REDIS_BUSY = 0.5  # with that, at most
_LIVES_S = 600.0
_PASS_MS, _PASS_PHOTOS = 150, 4
_JOBS_A_WORKER = 240
_LEASE_S = 4.0
_LISTENERS_A_WORKER = 4  # for photo jobs, reindexes, shards and webhooks
_STEADY = (0.1, 0.9)  # of the jobs: the first and last are had while not every thread is busy


def main() -> None:
    """Print tables; write `var/bench/simulate.json` and `var/bench/simulate.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", choices=[Backbone.RESNET50, Backbone.EFFICIENTNET_LITE0], default="resnet50")
    parser.add_argument("--workers", type=int, nargs="+", default=_WORKERS)
    parser.add_argument("--check", action="store_true", help="only compare with real workers; ends with 1 if 10 % off")
    parser.add_argument("--costs", action="store_true", help="only what large catalogues cost")
    parser.add_argument("--quick", action="store_true", help="one and two workers, for seconds")
    given = parser.parse_args()
    backbone = Backbone(given.backbone)
    if given.check:
        raise SystemExit(_check([1, 2] if given.quick else [1, 2, 3, 4], 40 if given.quick else _JOBS_A_WORKER))
    measured = measure(backbone)
    costs = measured.costs
    report = Report("simulate", backbone=backbone, photos_per_s_of_a_worker=costs.photos_per_s)
    for name, value in asdict(costs).items():
        report.add("unit costs", what=name, ms_or_number=value if isinstance(value, int) else 1e3 * value)
    if not given.costs:
        for workers in [1, 2] if given.quick else given.workers:
            for kind, fleet in (("none dies", Fleet(workers)), ("deaths", Fleet(workers, lives_s=_LIVES_S))):
                seconds = 5.0 if given.quick else max(_SECONDS, _DEATHS * _LIVES_S / workers)
                _simulate(report, costs, fleet, kind, seconds)
        for column in ("photos_per_s", "p95_ms", "redis_busy"):
            report.plot("fleets", x="workers", y=column, by="kind")
    home = installed(backbone)
    store = measure_store(home, n_listings=52) if given.quick else measure_store(home)
    add_costs(report, measured, store, measure_photo(), EMBEDDING_DIM[backbone])
    report.finish()


def _simulate(report: Report, costs: Costs, fleet: Fleet, kind: str, seconds: float) -> None:
    per_s = min(_BUSY * fleet.workers * costs.photos_per_s, _REDIS_BUSY / costs.redis_s)
    load = Load(per_s=per_s, shards=1 << 20)
    outcome = Simulation(costs, fleet, load).run(seconds)
    cuts = statistics.quantiles(outcome.latencies_s, n=100)
    report.add(
        "fleets",
        kind=kind,
        workers=fleet.workers,
        asked_per_s=load.per_s,
        answered_per_s=len(outcome.ended_at) / seconds,
        reindexed_per_s=outcome.shard_photos / seconds,
        photos_per_s=(len(outcome.ended_at) + outcome.shard_photos) / seconds,
        p50_ms=1e3 * cuts[49],
        p95_ms=1e3 * cuts[94],
        p99_ms=1e3 * cuts[98],
        redis_busy=outcome.redis_busy,
        api_processes=load.per_s * costs.api_s,
        deaths=outcome.deaths,
        retried=outcome.retried,
        failed=outcome.failed,
    )


# --- against real workers ---


def _check(counts: list[int], jobs_a_worker: int) -> int:
    home = installed(Backbone.EFFICIENTNET_LITE0)
    measured = measure(Backbone.EFFICIENTNET_LITE0)
    costs = replace(measured.costs, pass_s=_PASS_MS / 1e3, photo_s=0.0, pass_photos=_PASS_PHOTOS, streams=1)
    report = Report("simulate_check", pass_ms=_PASS_MS, pass_photos=_PASS_PHOTOS, jobs_a_worker=jobs_a_worker)
    worst = 0.0
    for workers in counts:
        predicted = Simulation(costs, Fleet(workers), Load(waiting=workers * jobs_a_worker)).run()
        real = _drain(home, workers, workers * jobs_a_worker)
        worst = max(worst, _compare(report, f"{workers} workers", _rate(predicted), _rate(real)))
    # One of two dies when a third is done, and nobody starts it again: its jobs wait for their leases to end.
    n_jobs = 2 * jobs_a_worker
    dies_at = n_jobs / 3 / (2 * costs.photos_per_s)
    fleet = Fleet(2, lease_s=_LEASE_S, kills=((dies_at, 1),), away_s=1e6)
    predicted = Simulation(costs, fleet, Load(waiting=n_jobs)).run()
    real = _drain(home, 2, n_jobs, kill_after=n_jobs // 3)
    overall = [len(each.ended_at) / (each.ended_at[-1] - each.ended_at[0]) for each in (predicted, real)]
    worst = max(worst, _compare(report, "one of two dies", *overall))
    report.facts["worst"] = worst
    report.finish()
    return 0 if worst <= 0.1 else 1


def _compare(report: Report, case: str, predicted: float, measured: float) -> float:
    off = measured / predicted - 1
    report.add("jobs a second", case=case, predicted=predicted, measured=measured, off=off)
    return abs(off)


def _rate(outcome: Outcome) -> float:
    """Jobs a second while every thread is busy."""
    ended = sorted(outcome.ended_at)
    first, last = (int(share * (len(ended) - 1)) for share in _STEADY)
    return (last - first) / (ended[last] - ended[first])


def _drain(home: Path, workers: int, n_jobs: int, *, kill_after: int | None = None) -> Outcome:
    """Have real workers do so many jobs."""
    sleeper = (sleeping_worker.__name__, str(_PASS_MS), str(_PASS_PHOTOS))
    settings = {"cache_entries": 0, "lease_s": _LEASE_S, "streams": 1, "max_batch": _PASS_PHOTOS}
    with tempfile.TemporaryDirectory() as scratch, serving(home, Path(scratch), n_workers=0) as stack:
        add_workers(stack, workers, sleeper, settings=settings)
        with stack.open_redis() as client:
            # A worker says that it is ready a moment before it listens for messages.
            eventually(lambda: _listening(client) == _LISTENERS_A_WORKER * workers, 60, "workers listen")
            store, celery = JobStore(client), make_celery(stack.redis_url, socket_timeout_s=2)
            job_ids = fill(store, n_jobs)
            for _ in job_ids:
                Dispatcher(celery, client).send_token()
            celery.close()
            if kill_after is not None:
                while store.depth() > n_jobs - kill_after - Fleet(1).threads * workers:
                    pass
                stack.processes["worker-1"].kill()
            wait_drained(store)
            return Outcome(ended_at=sorted(store.get(job_id).finished_at or 0.0 for job_id in job_ids))


def _listening(client: redis.Redis) -> int:
    return sum(each["cmd"] == "brpop" for each in client.client_list())


if __name__ == "__main__":
    main()
