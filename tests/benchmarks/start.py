"""How soon a worker whose bundle is built is ready, where that time goes, and how much memory a service takes.

    python -m tests.benchmarks.start [--turns 5] [--quick]

The backbones take turns; a start is counted from the process's creation to its first heartbeat as ready. The phases are
taken apart in another process that does the same steps one by one. Memory is read after photos were asked for, of
each part with the processes it has started. Files come from the page cache. Nothing here is asserted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from shared.settings import Backbone
from tests import ROOT
from tests.benchmarks.support.clients import Load, ask
from tests.benchmarks.support.installation import add_workers, installed, serving
from tests.benchmarks.support.material import query_photos
from tests.benchmarks.support.processes import memory
from tests.benchmarks.support.report import Report

_BACKBONES = (Backbone.EFFICIENTNET_LITE0, Backbone.RESNET50)
_SLOWEST_IMPORTS = 12


def main() -> None:
    """Print tables; write `var/bench/start.json` and `var/bench/start.png`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one turn, EfficientNet-Lite0 alone")
    parser.add_argument("--phases", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phases:
        print(json.dumps(_phases(given.phases)))
        return
    n_turns, backbones = (1, _BACKBONES[:1]) if given.quick else (given.turns, _BACKBONES)
    report = Report("start", turns=n_turns)
    homes = {backbone: installed(backbone) for backbone in backbones}
    started: dict[Backbone, list[float]] = defaultdict(list)
    phases: dict[tuple[Backbone, str], list[float]] = defaultdict(list)
    for turn in range(n_turns):
        for backbone, home in homes.items():
            started[backbone].append(_start_s(report, backbone, home, weigh=turn == 0))
            for phase, took_s in _in_another_process(home).items():
                phases[backbone, phase].append(took_s)
    for backbone, turns in started.items():
        report.add("start to ready", backbone=backbone, median_s=statistics.median(turns), slowest_s=max(turns))
    for (backbone, phase), turns in phases.items():
        report.add("phases of a start", phase=phase, backbone=backbone, ms=1e3 * statistics.median(turns))
    for name, took_s in _imports().items():
        report.add("slowest imports of a worker, their own time", module=name, ms=1e3 * took_s)
    report.plot("phases of a start", x="phase", y="ms", by="backbone")
    report.plot("memory, MB", x="part", y="pss", by="backbone")
    report.finish()


def _start_s(report: Report, backbone: Backbone, home: Path, *, weigh: bool) -> float:
    with tempfile.TemporaryDirectory() as scratch, serving(home, Path(scratch), n_workers=0) as service:
        began = time.perf_counter()
        add_workers(service, 1)
        took_s = time.perf_counter() - began
        if weigh:
            service.wait_ready()
            path, photos = "/v1/jobs/embed", query_photos()[0].parent
            ask(Load(service.port, path, str(photos), 8, 3, 0, headers={"Prefer": "wait=30"}))
            for part, process in service.processes.items():
                used = memory(process.pid)
                name = part.partition("-")[0]
                report.add("memory, MB", part=name, backbone=backbone, rss=used.rss, pss=used.pss, uss=used.uss)
        return took_s


def _in_another_process(home: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.start", "--phases", str(home)]
    took: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)
    return took


def _phases(home: Path) -> dict[str, float]:
    """Seconds of each step of a start, in order, in this process."""
    marks = [("", time.perf_counter())]

    def done(phase: str) -> None:
        marks.append((phase, time.perf_counter()))

    import worker.process  # noqa: F401

    done("import worker")
    from shared.model.openvino_library import openvino_library

    openvino_library()
    done("import openvino")
    from shared.artifacts.snapshots import index_store
    from shared.index.snapshot import open_snapshot
    from shared.model.bundle import bundle_store, open_bundle
    from shared.model.embedder import Cores
    from shared.model.runtimes import open_embedder

    bundle = open_bundle(bundle_store(home))
    done("open and verify bundle")
    embedder = open_embedder(bundle)
    done("compile graph")
    pixels = np.zeros((1, *[bundle.manifest.preprocess.size_px] * 2, 3), dtype=np.uint8)
    for cores in (Cores.ALL, Cores.STREAM):
        embedder.embed(pixels, cores)
    done("first passes")
    open_snapshot(index_store(home), fingerprint=bundle.manifest.fingerprint)
    done("open index")
    return {phase: at - before for (phase, at), (_, before) in zip(marks[1:], marks, strict=False)}


def _imports() -> dict[str, float]:
    """Seconds that the slowest packages take by themselves when a worker is imported."""
    command = [sys.executable, "-X", "importtime", "-c", "import worker.process, openvino"]
    told = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, cwd=ROOT).stderr
    own_s: dict[str, float] = defaultdict(float)
    for line in told.splitlines()[1:]:
        own_us, _, name = line.removeprefix("import time:").split("|")
        own_s[name.strip().partition(".")[0]] += int(own_us) / 1e6
    return dict(sorted(own_s.items(), key=lambda item: -item[1])[:_SLOWEST_IMPORTS])


if __name__ == "__main__":
    main()
