"""Promotions one after another under a worker that searches: what it answers from, and what memory it takes.

python -m tests.e2e.faults.promotions --n 50
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import requests

from pipeline.demo.catalogue import generate
from shared.artifacts.snapshots import bundle_of, bundle_store, index_store, read_index_manifest
from shared.model.bundle import import_bundle
from tests.e2e.conftest import eventually, lookalike
from tests.e2e.support.fleet import Fleet
from tests.e2e.support.memory import memory_of
from tests.support.snapshots import write_reversed

GROWTH = 0.05
_SEARCHES = 10  # after each promotion
_WARMUP = 10  # promotions, before which memory does not count


class Promoted(NamedTuple):
    """A promotion that the worker has taken up.

    Attributes:
        version: of the index.
        resident, anonymous: MB of the worker afterwards.
    """

    version: str
    resident: float
    anonymous: float


def promote_often(fleet: Fleet, versions: Sequence[str], photos: Sequence[bytes], n: int) -> list[Promoted]:
    """Promote indexes in turn, each with its model, and search from each.

    Args:
        fleet: with one worker, `worker`.
        versions: of the index.
        photos: to search by; the catalogue has them, so that they are found first.
        n: promotions.
    """
    indexes, bundles = index_store(fleet.location), bundle_store(fleet.location)
    done = []
    for version in islice(cycle(versions), n):
        bundle = bundle_of(fleet.location, read_index_manifest(indexes, version).fingerprint)
        assert bundle
        if bundles.current() != bundle:
            bundles.promote(bundle)
        indexes.promote(version)
        eventually(lambda version=version: _search(fleet, photos[0])[0] == version, 30, version)  # type: ignore[misc]
        for photo in islice(cycle(photos), _SEARCHES):
            answered, score = _search(fleet, photo)
            assert (answered, score > 0.99) == (version, True)
        done.append(Promoted(version, *memory_of(fleet.processes["worker"].pid)))
    return done


def _search(fleet: Fleet, photo: bytes) -> tuple[str, float]:
    """The index that answered, and the first score."""
    answer = requests.post(
        f"{fleet.url}/v1/jobs/search", files={"image": photo}, headers={"Prefer": "wait=20"}, timeout=30
    )
    result = answer.json()["result"]
    return str(result["index_version"]), float(result["neighbours"][0]["score"])


def _take_over(other: Path, home: Path) -> str:
    """Have model and index of another installation too; returns the index's version."""
    bundles, indexes = bundle_store(other), index_store(other)
    version = indexes.current()
    assert version
    import_bundle(bundle_store(home), bundles.path(bundles.newest()))
    shutil.copytree(indexes.path(version), index_store(home).root / version)
    return version


def main() -> int:
    parser = argparse.ArgumentParser(description="Promote again and again, and see whether the worker grows.")
    parser.add_argument("--n", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lookalike-promotions-") as name:
        directory = Path(name)
        home, demo = directory / "home", directory / "demo"
        generate(demo, n_listings=52)
        for backbone in ("efficientnet_lite0", "efficientnet_lite2"):
            built = lookalike("index", "build", "--catalogue", str(demo), home=directory / backbone, backbone=backbone)
            if built.returncode:
                print(built.stderr, file=sys.stderr)
                return 1
        shutil.move(directory / "efficientnet_lite0", home)
        first, second = index_store(home).current(), _take_over(directory / "efficientnet_lite2", home)
        other = write_reversed(home)
        assert first
        photos = [path.read_bytes() for path in sorted((demo / "images").iterdir())]
        fleet = Fleet(home, directory / "valkey", log=directory / "log", streams=2)
        try:
            fleet.man(1)
            done = promote_often(fleet, (first, second, other), photos, asked.n)
        finally:
            fleet.close()
    for number, one in enumerate(done, 1):
        print(f"{number:4} {one.version}  {one.resident:.0f} MB resident, {one.anonymous:.0f} of no file")
    settled = done[_WARMUP:]
    third = len(settled) // 3
    early, late = (statistics.median(one.resident for one in some) for some in (settled[:third], settled[-third:]))
    print(f"resident {early:.0f} -> {late:.0f} MB ({late / early - 1:+.1%})")
    return 0 if late <= early * (1 + GROWTH) else 1


if __name__ == "__main__":
    sys.exit(main())
