"""What the benchmarks of the service run on: an installation kept in var/bench."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from shared.jobs.worker_registry import WorkerRegistry
from shared.settings import Backbone
from tests.benchmarks.support.material import catalogue, random_resnet50
from tests.benchmarks.support.report import RESULTS
from tests.e2e.conftest import Stack, environment, eventually

# Of services whose model is measured: every photo is embedded, and only those of the benchmark are.
# Streams and batches are tuned as they are wherever the service runs, and not fixed as in its tests.
UNCACHED = {"cache_entries": 0, "probe_every_s": 0, "streams": 0, "max_batch": 0}
_READY_WITHIN_S = 300  # sixteen workers that start at once, on a busy machine


def installed(backbone: Backbone, directory: Path | None = None, weights: Path | None = None) -> Path:
    """The home of an installation with a bundle of this backbone and the index of a small catalogue.

    Built by the first benchmark that wants it and used again by the next. Random weights stand in for ResNet50's
    where none are given: speed is measured here, never quality.
    """
    directory = directory or RESULTS / "installed"
    directory.mkdir(parents=True, exist_ok=True)
    settings: dict[str, object] = {"backbone": backbone}
    if backbone is Backbone.RESNET50:
        settings["weights"] = weights or random_resnet50(directory / "resnet50-random.pth")
    home = directory / backbone
    command = [sys.executable, "-m", "pipeline.cli", "prepare", "--catalogue", str(catalogue(directory))]
    subprocess.run(command, env=environment(home, **settings), check=True, stdout=sys.stderr)
    return home.resolve()


@contextmanager
def serving(
    home: Path, scratch: Path, *, n_workers: int = 1, settings: Mapping[str, object] = UNCACHED
) -> Iterator[Stack]:
    """API and workers, ready, and ended afterwards; whatever `settings` does not name is as it comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which leaves nothing running either
    stack = Stack(home, scratch / "valkey", log=RESULTS / "service.log")
    try:
        stack.start("api", **settings)
        eventually(lambda: requests.get(stack.url + "/livez", timeout=5).ok, 60, "the API listens")
        add_workers(stack, n_workers, settings=settings)
        if n_workers:
            stack.wait_ready()
        yield stack
    finally:
        stack.close()


def add_workers(
    stack: Stack,
    n_workers: int,
    worker: Sequence[str] = ("worker",),
    *,
    settings: Mapping[str, object] = UNCACHED,
) -> None:
    """Start workers until there are so many, and wait until all are ready.

    Args:
        worker: the module that is a worker, and what it is given.
    """
    names = [f"worker-{number}" for number in range(n_workers)]
    for name in names:
        if name not in stack.processes:
            stack.launch(name, ["-m", *worker], **settings)
    pids = {stack.processes[name].pid for name in names}
    with stack.open_redis() as client:
        registry = WorkerRegistry(client)

        def ready() -> bool:
            if ended := [name for name in names if stack.processes[name].poll() is not None]:
                raise SystemExit(f"{ended[0]} has ended; {RESULTS / 'service.log'} says why")
            return pids <= {worker.pid for worker in registry.live() if worker.state == "ready"}

        eventually(ready, _READY_WITHIN_S, "workers are ready")


def reindexed(url: str, **request: object) -> dict[str, Any]:
    """Have the service at `url` reindex, and return the job once it has succeeded; otherwise the benchmark ends."""
    answer = requests.post(f"{url}/v1/jobs/reindex", json=request, timeout=30)
    answer.raise_for_status()
    job: dict[str, Any] = answer.json()
    while job["status"] in ("queued", "running"):
        job = requests.get(f"{url}/v1/jobs/{job['id']}?wait=30", timeout=60).json()
    if job["status"] != "succeeded":
        raise SystemExit(f"the reindex {job['status']}: {job.get('error')}")
    return job
