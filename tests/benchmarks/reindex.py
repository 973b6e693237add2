"""A reindex against the bare time of its model over the same photos, and what searches notice of it: `make bench`.

    python -m tests.benchmarks.reindex [--catalogue DIR]

All is measured in one run on the same cores, by turns; figures are medians and their ratios. The catalogue is copied,
because some of its photos are changed. Nothing here is asserted: machines differ.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests
from PIL import Image, ImageOps

from pipeline.demo import generate
from pipeline.embed import run_over_photos
from shared.indexing.catalogue import read_catalogue
from shared.vision.bundle import bundle_store, open_bundle
from shared.vision.runtimes import open_embedder
from tests.e2e.conftest import Stack, lookalike

N_TURNS = 3
N_CHANGED = 25
SEARCHES_PER_S = 5


def main() -> None:
    """Print a table and write `var/bench/reindex.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path)
    given = parser.parse_args().catalogue
    with tempfile.TemporaryDirectory() as scratch:
        catalogue, home = Path(scratch) / "catalogue", Path(scratch) / "home"
        if given:
            shutil.copytree(given, catalogue, copy_function=shutil.copyfile)
            for directory in (catalogue, *catalogue.iterdir()):
                os.chmod(directory, 0o755)
        else:
            generate(catalogue)
        built = lookalike("prepare", "--catalogue", str(catalogue), home=home)
        assert built.returncode == 0, built.stderr
        service = Stack(home, Path(scratch) / "valkey")
        try:
            service.start("worker", catalogue=catalogue, cache_entries=0)
            service.start("api", catalogue=catalogue)
            service.wait_ready()
            report = _measure(service, catalogue)
        finally:
            service.close()
    target = Path("var/bench/reindex.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1))
    print(f"{report['photos']} photos, {report['backbone']}; bare loop {report['bare_s']:.2f} s")
    for name in ("full_by_bare", "unchanged_by_full", "changed_by_full", "search_p95_by_idle"):
        print(f"{name:20s} {report[name]:8.4f}")


def _measure(service: Stack, catalogue: Path) -> dict[str, Any]:
    bundle = open_bundle(bundle_store(service.home))
    embedder = open_embedder(bundle)
    photos = read_catalogue(catalogue).photos
    contents = {photo.sha256: photo for photo in photos}

    def bare() -> float:
        began = time.perf_counter()
        run_over_photos(list(contents.values()), bundle.manifest.preprocess, embedder.embed, desc="bare")
        return time.perf_counter() - began

    def reindex(**request: object) -> float:
        began = time.perf_counter()
        answer = requests.post(f"{service.url}/v1/jobs/reindex", json=request, timeout=30)
        answer.raise_for_status()
        job = answer.json()
        while job["status"] in ("queued", "running"):
            job = requests.get(f"{service.url}/v1/jobs/{job['id']}?wait=30", timeout=60).json()
        assert job["status"] == "succeeded", job
        return time.perf_counter() - began

    files = sorted((catalogue / "images").iterdir())
    fulls, bares, unchanged, changed = [], [], [], []
    reindex()  # warm: the first one reads the tables
    for turn in range(N_TURNS):
        fulls.append(reindex(mode="all"))
        bares.append(bare())
        unchanged.append(reindex())
        for photo in files[turn * N_CHANGED :][:N_CHANGED]:
            with Image.open(photo) as image:
                ImageOps.mirror(image.convert("RGB")).save(photo)
        changed.append(reindex(promote="if_valid"))
    query = files[0].read_bytes()
    idle = _search_for(service, query, 10)
    thread = threading.Thread(target=lambda: [reindex(mode="all") for _ in range(2)])
    thread.start()
    busy = _search_for(service, query, 10, until=thread)
    thread.join()
    full = statistics.median(fulls)
    return {
        "backbone": bundle.manifest.backbone,
        "precision": bundle.manifest.precision,
        "photos": len(photos),
        "bare_s": statistics.median(bares),
        "full_s": full,
        "full_by_bare": full / statistics.median(bares),
        "unchanged_by_full": statistics.median(unchanged) / full,
        "changed_by_full": statistics.median(changed) / full,
        "search_p95_idle_ms": 1e3 * idle,
        "search_p95_busy_ms": 1e3 * busy,
        "search_p95_by_idle": busy / idle,
    }


def _search_for(service: Stack, photo: bytes, seconds: float, until: threading.Thread | None = None) -> float:
    """The 95th percentile of searches sent at a steady pace for so long, or until a thread ends."""
    took: list[float] = []
    began = time.perf_counter()
    while (until.is_alive() if until else time.perf_counter() - began < seconds) or len(took) < 20:
        sent = time.perf_counter()
        url = f"{service.url}/v1/jobs/search"
        answer = requests.post(url, files={"image": photo}, headers={"Prefer": "wait=20"}, timeout=30)
        assert answer.json()["status"] == "succeeded", answer.text
        took.append(time.perf_counter() - sent)
        time.sleep(max(0.0, 1 / SEARCHES_PER_S - took[-1]))
    return statistics.quantiles(took, n=20)[-1]


if __name__ == "__main__":
    main()
