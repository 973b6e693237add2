"""A reindex against the bare time of its model over the same photos: `make bench`.

    python -m tests.benchmarks.reindex [--catalogue DIR] [--quick]

All is measured in one run on the same cores, by turns; figures are medians and their ratios. The catalogue is copied,
because some of its photos are changed. Nothing here is asserted: machines differ.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import requests
from PIL import Image, ImageOps

from pipeline.building.embed import run_over_photos
from pipeline.demo.catalogue import generate
from shared.catalogue.tables import read_catalogue
from shared.model.bundle import bundle_store, open_bundle
from shared.model.runtimes import open_embedder
from tests.benchmarks.support.report import Report
from tests.e2e.conftest import Stack, lookalike

N_TURNS = 3
N_CHANGED = 25


def main() -> None:
    """Print a table; write `var/bench/reindex.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--quick", action="store_true", help="one turn over 52 demo listings")
    given = parser.parse_args()
    n_turns = 1 if given.quick else N_TURNS
    report = Report("reindex", turns=n_turns)
    with tempfile.TemporaryDirectory() as scratch:
        catalogue, home = Path(scratch) / "catalogue", Path(scratch) / "home"
        if given.catalogue:
            shutil.copytree(given.catalogue, catalogue, copy_function=shutil.copyfile)
            for directory in (catalogue, *catalogue.iterdir()):
                os.chmod(directory, 0o755)
        else:
            generate(catalogue, n_listings=52 if given.quick else 403)
        built = lookalike("prepare", "--catalogue", str(catalogue), home=home)
        assert built.returncode == 0, built.stderr
        service = Stack(home, Path(scratch) / "valkey")
        try:
            service.start("worker", catalogue=catalogue, cache_entries=0)
            service.start("api", catalogue=catalogue)
            service.wait_ready()
            _measure(report, service, catalogue, n_turns)
        finally:
            service.close()
    report.finish()


def _measure(report: Report, service: Stack, catalogue: Path, n_turns: int) -> None:
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
    for turn in range(n_turns):
        fulls.append(reindex(mode="all"))
        bares.append(bare())
        unchanged.append(reindex())
        for photo in files[turn * N_CHANGED :][:N_CHANGED]:
            with Image.open(photo) as image:
                ImageOps.mirror(image.convert("RGB")).save(photo)
        changed.append(reindex(promote="if_valid"))
    full = statistics.median(fulls)
    report.facts |= {
        "photos": len(photos),
        "backbone": bundle.manifest.backbone,
        "precision": bundle.manifest.precision,
    }
    rows = {
        "bare loop over the model": bares,
        "all": fulls,
        f"{N_CHANGED} photos changed": changed,
        "nothing changed": unchanged,
    }
    for name, turns in rows.items():
        took_s = statistics.median(turns)
        report.add(
            "reindex", what=name, median_s=took_s, of_bare=took_s / statistics.median(bares), of_all=took_s / full
        )


if __name__ == "__main__":
    main()
