"""More worker processes: two against one on the same cores, and up to sixteen whose model only sleeps.

    python -m tests.benchmarks.workers [--backbone resnet50] [--sleeping 1 2 4 8 16] [--reindexing 1 2 4] [--quick]

The first part asks whether workers that share cores hinder one another: a service with one worker and a service with
two take turns, all with the settings they come with. The second asks whether queue and API keep up: passes take
half a second and no processor time, so workers add up until something else is the limit. The third has such workers
embed a catalogue together, as a reindex does. Nothing is asserted.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from shared.settings import Backbone
from tests.benchmarks.support import sleeping_worker
from tests.benchmarks.support.clients import Asked, Load, ask
from tests.benchmarks.support.installation import UNCACHED, add_workers, installed, reindexed, serving
from tests.benchmarks.support.material import catalogue, query_photos
from tests.benchmarks.support.processes import cpu_s
from tests.benchmarks.support.report import Report
from tests.e2e.conftest import Stack

_N_CLIENTS = 32
# Sixteen of them are 64 photos a second, about one core of work for everything but the model.
_PASS_MS, _PASS_PHOTOS = 500, 2
_REINDEX_PASS_MS = 200
_N_LISTINGS = 512  # of two photos
# More than a worker takes in hand at once, so that none ever waits for a client.
_CLIENTS_A_SLEEPER = 10


def main() -> None:
    """Print tables; write `var/bench/workers.json` and `var/bench/workers.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", choices=[Backbone.RESNET50, Backbone.EFFICIENTNET_LITE0], default="resnet50")
    parser.add_argument("--sleeping", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--reindexing", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="each of them")
    parser.add_argument("--quick", action="store_true", help="one short turn, two sleeping workers at most")
    given = parser.parse_args()
    if given.quick:
        given.turns, given.seconds, given.sleeping, given.reindexing = 1, 1.0, [1, 2], []
    home = installed(Backbone(given.backbone))
    report = Report("workers", backbone=given.backbone, turns=given.turns, seconds=given.seconds, pass_ms=_PASS_MS)
    with tempfile.TemporaryDirectory() as scratch:
        _share_cores(report, home, Path(scratch), given.turns, given.seconds)
    if given.sleeping:
        with tempfile.TemporaryDirectory() as scratch:
            _add_sleepers(report, home, Path(scratch), given.sleeping, given.turns, given.seconds)
        report.plot("sleeping workers", x="workers", y="photos_per_s", by="kind")
        report.plot("sleeping workers", x="workers", y="of_linear", by="kind")
    if given.reindexing:
        with tempfile.TemporaryDirectory() as scratch:
            _reindex_together(report, home, Path(scratch), given.reindexing)
    report.finish()


def _share_cores(report: Report, home: Path, scratch: Path, n_turns: int, seconds: float) -> None:
    rates: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as running:
        services = {n: running.enter_context(serving(home, scratch / str(n), n_workers=n)) for n in rates}
        for turn in range(n_turns + 1):
            for n_workers, service in services.items():
                per_s = _ask(service, _N_CLIENTS, seconds).per_s
                if turn:  # the first turn warms up
                    rates[n_workers].append(per_s)
    alone = statistics.median(rates[1])
    for n_workers, turns in rates.items():
        per_s = statistics.median(turns)
        report.add("workers on the same cores", workers=n_workers, photos_per_s=per_s, of_one=per_s / alone)


def _add_sleepers(report: Report, home: Path, scratch: Path, counts: list[int], n_turns: int, seconds: float) -> None:
    sleeper = (sleeping_worker.__name__, str(_PASS_MS), str(_PASS_PHOTOS))
    per_worker = 0.0
    with serving(home, scratch, n_workers=0) as service:
        for n_workers in sorted(counts):
            add_workers(service, n_workers, sleeper)
            processes = [process.pid for process in service.processes.values()]
            began, used_s = time.perf_counter(), cpu_s(processes)
            turns = [_ask(service, _CLIENTS_A_SLEEPER * n_workers, seconds) for _ in range(n_turns)]
            cores = (cpu_s(processes) - used_s) / (time.perf_counter() - began)
            per_s = statistics.median(turn.per_s for turn in turns)
            per_worker = per_worker or per_s / n_workers
            report.add(
                "sleeping workers",
                kind=f"{_PASS_PHOTOS} photos in {_PASS_MS} ms",
                workers=n_workers,
                photos_per_s=per_s,
                of_linear=per_s / (n_workers * per_worker),
                of_possible=per_s / (n_workers * _PASS_PHOTOS * 1e3 / _PASS_MS),
                p50_ms=1e3 * statistics.median(latency for turn in turns for latency in turn.latencies_s),
                cores_of_service=cores,
                cores_of_clients=statistics.median(turn.cpu_s / turn.elapsed_s for turn in turns),
            )


def _reindex_together(report: Report, home: Path, scratch: Path, counts: list[int]) -> None:
    """A reindex of 1,024 photos by so many workers; the time is that of the stage that embeds."""
    photos, own = catalogue(scratch, _N_LISTINGS), scratch / "home"
    shutil.copytree(home, own)
    sleeper = (sleeping_worker.__name__, str(_REINDEX_PASS_MS), str(_PASS_PHOTOS))
    settings = {**UNCACHED, "catalogue": photos}
    per_worker = 0.0
    with serving(own, scratch / "valkey", n_workers=0, settings=settings) as service:
        for n_workers in sorted(counts):
            add_workers(service, n_workers, sleeper, settings=settings)
            result = reindexed(service.url, mode="all", promote="never")["result"]
            per_s = result["counts"]["embedded"] / result["timings_s"]["embedding"]
            per_worker = per_worker or per_s / n_workers
            report.add(
                "reindexing workers",
                kind=f"{_PASS_PHOTOS} photos in {_REINDEX_PASS_MS} ms",
                workers=n_workers,
                photos_per_s=per_s,
                of_linear=per_s / (n_workers * per_worker),
                of_possible=per_s / (n_workers * _PASS_PHOTOS * 1e3 / _REINDEX_PASS_MS),
            )


def _ask(service: Stack, n_clients: int, seconds: float) -> Asked:
    path, photos = "/v1/jobs/embed?encoding=base64", query_photos()[0].parent
    headers = {"Prefer": "wait=30"}
    return ask(Load(service.port, path, str(photos), n_clients, seconds, warm_s=1.0, headers=headers))


if __name__ == "__main__":
    main()
