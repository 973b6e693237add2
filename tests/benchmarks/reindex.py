"""A reindex against the strongest bare loop of its model over the same photos: `make bench`.

    python -m tests.benchmarks.reindex [--catalogue DIR] [--backbone resnet50] [--quick]

The loop decodes and embeds and does nothing else; so its time is compared with that of the reindex's stage that embeds,
and with that of all of it. All is measured in one run on the same cores, by turns; figures are medians and their
ratios. The catalogue is copied, because some of its photos are changed. Nothing here is asserted: machines differ.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.demo.catalogue import generate
from shared.catalogue.tables import read_catalogue
from shared.settings import Backbone
from tests.benchmarks.support.bare import BareLoop
from tests.benchmarks.support.installation import UNCACHED, reindexed
from tests.benchmarks.support.material import random_resnet50
from tests.benchmarks.support.report import Report
from tests.e2e.conftest import Stack, lookalike

N_TURNS = 3
N_CHANGED = 25
_BARE_S = 8.0


def main() -> None:
    """Print a table; write `var/bench/reindex.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--backbone", choices=[Backbone.RESNET50, Backbone.EFFICIENTNET_LITE0])
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
        chosen: dict[str, object] = {"backbone": given.backbone} if given.backbone else {}
        if given.backbone == Backbone.RESNET50:
            chosen["weights"] = random_resnet50(Path(scratch) / "resnet50-random.pth")
        built = lookalike("prepare", "--catalogue", str(catalogue), home=home, **chosen)
        assert built.returncode == 0, built.stderr
        service = Stack(home, Path(scratch) / "valkey")
        try:
            service.start("worker", catalogue=catalogue, **UNCACHED)
            service.start("api", catalogue=catalogue)
            service.wait_ready()
            _measure(report, service, catalogue, n_turns)
        finally:
            service.close()
    report.finish()


def _measure(report: Report, service: Stack, catalogue: Path, n_turns: int) -> None:
    photos = read_catalogue(catalogue).photos
    contents = {photo.sha256: photo.path.read_bytes() for photo in photos}
    loop = BareLoop(service.home, list(contents.values()), quick=n_turns == 1)

    def bare() -> float:
        return len(contents) / loop.run(_BARE_S).per_s

    def reindex(**request: object) -> tuple[float, float]:
        """Seconds of it all, and of the stage that embeds."""
        began = time.perf_counter()
        job = reindexed(service.url, **request)
        return time.perf_counter() - began, job["result"]["timings_s"].get("embedding", 0.0)

    files = sorted((catalogue / "images").iterdir())
    fulls, embeddings, bares, unchanged, changed = [], [], [], [], []
    reindex()  # warm: the first one reads the tables
    for turn in range(n_turns):
        whole_s, embedding_s = reindex(mode="all")
        fulls.append(whole_s)
        embeddings.append(embedding_s)
        bares.append(bare())
        unchanged.append(reindex()[0])
        for photo in files[turn * N_CHANGED :][:N_CHANGED]:
            with Image.open(photo) as image:
                ImageOps.mirror(image.convert("RGB")).save(photo)
        changed.append(reindex(promote="if_valid")[0])
    full = statistics.median(fulls)
    report.facts |= {
        "photos": len(photos),
        "backbone": loop.manifest.backbone,
        "precision": loop.manifest.precision,
        "bare_loop": str(loop),
    }
    rows = {
        "the strongest bare loop": bares,
        "all, the embedding of it": embeddings,
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
