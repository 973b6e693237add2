"""What somebody who waits notices of a bulk reindex: latencies of searches at a steady pace, idle and meanwhile.

    python -m tests.benchmarks.interactive [--backbone resnet50] [--quick]

Idle and busy turns alternate in one run: in a busy one a reindex that embeds every photo again begins with the first
search and another follows whenever one ends. Nothing here is asserted.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from shared.settings import Backbone
from tests.benchmarks.support.installation import UNCACHED, installed, serving
from tests.benchmarks.support.material import catalogue, query_photos
from tests.benchmarks.support.report import RESULTS, Report
from tests.e2e.conftest import Stack, eventually

_SEARCHES_PER_S = 5
_N_LISTINGS = 403  # of two photos each: enough that a reindex is mostly embedding


def main() -> None:
    """Print a table; write `var/bench/interactive.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", choices=[Backbone.RESNET50, Backbone.EFFICIENTNET_LITE0], default="resnet50")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="each of them")
    parser.add_argument("--quick", action="store_true", help="one turn of 2 s")
    given = parser.parse_args()
    n_turns, seconds = (1, 2.0) if given.quick else (given.turns, given.seconds)
    photos = [path.read_bytes() for path in query_photos()]
    report = Report("interactive", backbone=given.backbone, turns=n_turns, searches_per_s=_SEARCHES_PER_S)
    took_ms: dict[str, list[float]] = {"idle": [], "during a reindex": []}
    large = catalogue(RESULTS / "installed", n_listings=_N_LISTINGS).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"  # a copy, because every reindex leaves a snapshot
        shutil.copytree(installed(Backbone(given.backbone)), home)
        with serving(home, Path(scratch), settings={**UNCACHED, "catalogue": large}) as service:
            _search(service, photos[0])
            for _ in range(n_turns):
                took_ms["idle"] += _searches_ms(service, photos, seconds)
                with _reindexing(service):
                    took_ms["during a reindex"] += _searches_ms(service, photos, seconds)
    idle = _centiles(took_ms["idle"])
    for when, latencies_ms in took_ms.items():
        p50, p95 = _centiles(latencies_ms)
        report.add("searches", when=when, n=len(latencies_ms), p50_ms=p50, p95_ms=p95, p95_of_idle=p95 / idle[1])
    report.finish()


def _searches_ms(service: Stack, photos: Sequence[bytes], seconds: float) -> Iterator[float]:
    """Latencies of searches sent at a steady pace for so long; a slow answer does not delay the next by much."""
    began = time.perf_counter()
    while (sent := time.perf_counter()) < began + seconds:
        yield 1e3 * _search(service, photos[int(sent * _SEARCHES_PER_S) % len(photos)])
        time.sleep(max(0.0, sent + 1 / _SEARCHES_PER_S - time.perf_counter()))


def _search(service: Stack, photo: bytes) -> float:
    began = time.perf_counter()
    answer = requests.post(
        f"{service.url}/v1/jobs/search", files={"image": photo}, headers={"Prefer": "wait=30"}, timeout=60
    )
    assert answer.json()["status"] == "succeeded", answer.text
    return time.perf_counter() - began


@contextmanager
def _reindexing(service: Stack) -> Iterator[None]:
    """Reindexes one after the other; the last is cancelled."""
    stopping = threading.Event()
    jobs: list[str] = []

    def reindex() -> None:
        while not stopping.is_set():
            request = {"mode": "all", "promote": "never"}
            answer = requests.post(f"{service.url}/v1/jobs/reindex", json=request, timeout=30)
            if answer.status_code == 409:  # the last one is just ending
                stopping.wait(0.1)
                continue
            jobs.append(answer.json()["id"])
            while not stopping.is_set() and _status(service, jobs[-1]) in ("queued", "running"):
                pass

    thread = threading.Thread(target=reindex)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        requests.post(f"{service.url}/v1/jobs/{jobs[-1]}/cancel", timeout=30)
        eventually(lambda: _status(service, jobs[-1]) in ("succeeded", "canceled"), 60, "the last reindex ends")


def _status(service: Stack, job_id: str) -> str:
    status: str = requests.get(f"{service.url}/v1/jobs/{job_id}?wait=1", timeout=30).json()["status"]
    return status


def _centiles(latencies_ms: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 95th."""
    return statistics.median(latencies_ms), statistics.quantiles(latencies_ms, n=20, method="inclusive")[-1]


if __name__ == "__main__":
    main()
