"""Milvus beside FAISS on one installation: `python -m tests.benchmarks.milvus --home HOME --catalogue DIRECTORY`.

Queries are photos of the catalogue, mirrored and cropped to 80 %, embedded by the live bundle: real photos, and none
that the index has. Each goes to both in every way a search can be asked. Two answers differ only where another photo
has the place of one whose score nothing else ties with. The server is the embedded twin, which tells nothing of how
fast a cluster is. Nothing here is asserted, but a difference ends it with exit code 1.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from shared.array_types import FloatArray
from shared.artifacts.snapshots import bundle_store, index_store
from shared.catalogue.categories import CATEGORIES
from shared.index.snapshot import open_snapshot
from shared.index.vector_index import VectorIndex
from shared.jobs.answers_contract import Neighbour
from shared.jobs.contract import (
    SearchRequest,
)
from shared.model.bundle import open_bundle
from shared.model.embedder import Embeddings
from shared.model.runtimes import open_embedder
from shared.photos.images import PreprocessSpec, decode_photo
from tests.benchmarks.support.report import RESULTS, Report
from tests.support.milvus import MilvusLite
from tests.support.snapshots import write_snapshot

TIE = 1e-5
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"k": 20},
    "distinct": {"k": 20, "distinct": "listing"},
    "category": {"k": 20, "category": CATEGORIES[0]},
    "all of it": {"k": 20, "category": CATEGORIES[0], "exclude_listing": "", "distinct": "listing", "min_score": 0.2},
}


def main() -> int:
    """Print tables; write `var/bench/milvus.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    bundle = open_bundle(bundle_store(options.home))
    fingerprint = bundle.manifest.fingerprint
    files = open_snapshot(index_store(options.home), fingerprint=fingerprint)
    photos = list(files.photos())
    chosen = np.random.default_rng(17).choice(len(photos), min(options.queries, len(photos)), replace=False)
    embedder = open_embedder(bundle)
    spec = bundle.manifest.preprocess
    queries = [embedder.embed(_taken_anew(options.catalogue / photos[row].path, spec)[None]) for row in chosen]
    report = Report("milvus", photos=len(photos), queries=len(queries), dimension=files.manifest.dimension)
    n_wrong = 0
    with tempfile.TemporaryDirectory(dir=RESULTS) as scratch:
        twin = MilvusLite(Path(scratch))
        try:
            for kind, exact_up_to in (("FLAT", len(photos)), ("IVF_FLAT", 0)):
                server, store = twin.connect(), index_store(Path(scratch) / kind)
                began = time.perf_counter()
                version = write_snapshot(
                    store,
                    photos,
                    Embeddings(files.vectors(slice(None)), files.scores(slice(None))),
                    fingerprint=fingerprint,
                    catalogue="",
                    catalogue_digest="",
                    exact_up_to=exact_up_to,
                    server=server,
                )
                built_s = time.perf_counter() - began
                milvus = open_snapshot(store, fingerprint=fingerprint, version=version, server=server)
                facts = milvus.manifest.index
                assert facts
                report.add(
                    "built",
                    kind=kind,
                    seconds=round(built_s, 1),
                    n_probes=facts.n_probes,
                    recall_at_10=facts.recall_at_10,
                )
                for way, asked in WAYS.items():
                    told = _compare(files, milvus, [query.vectors[0] for query in queries], asked)
                    report.add("searches", kind=kind, way=way, **told)
                    n_wrong += told["differing"] if kind == "FLAT" else 0
        finally:
            twin.kill()
    report.finish()
    return 1 if n_wrong else 0


def _taken_anew(path: Path, spec: PreprocessSpec) -> Any:
    """Pixels of a photo as somebody else might have taken it."""
    with Image.open(path) as photo:
        upright = ImageOps.exif_transpose(photo).convert("RGB")
    width, height = upright.size
    cropped = ImageOps.mirror(upright.crop((width // 10, height // 10, width - width // 10, height - height // 10)))
    file = BytesIO()
    cropped.save(file, "JPEG", quality=92)
    return decode_photo(file.getvalue(), spec)


def _compare(files: VectorIndex, milvus: VectorIndex, queries: list[FloatArray], asked: dict[str, Any]) -> Any:
    took: dict[str, list[float]] = {"files": [], "milvus": []}
    largest, counts = 0.0, Counter[str]()
    for query in queries:
        if "exclude_listing" in asked:
            asked = asked | {"exclude_listing": files.search(query, SearchRequest(k=1))[0].listing_id}
        request = SearchRequest.model_validate(asked)
        answers = []
        for name, index in (("files", files), ("milvus", milvus)):
            began = time.perf_counter()
            answers.append(index.search(query, request))
            took[name].append(1e3 * (time.perf_counter() - began))
        one, other = answers
        counts["identical"] += [n.image_id for n in one] == [n.image_id for n in other]
        counts["differing"] += not _same(one, other)
        largest = max(largest, max((abs(a.score - b.score) for a, b in zip(one, other, strict=False)), default=0))
    return {
        "queries": len(queries),
        "identical": counts["identical"],
        "differing": counts["differing"],
        "largest_score_difference": round(largest, 9),
        **{f"{name}_ms": round(statistics.median(times), 2) for name, times in took.items()},
    }


def _same(one: list[Neighbour], other: list[Neighbour]) -> bool:
    """Whether two answers have the same photos in the same places, but for those whose scores tie."""
    if len(one) != len(other):
        return False
    tied = [{b.image_id for b in one if abs(a.score - b.score) <= TIE} for a in one]
    # The last place may go to one that ties with it and is in neither list's other places.
    return all(
        b.image_id in ties or (abs(a.score - b.score) <= TIE and abs(a.score - one[-1].score) <= TIE)
        for a, b, ties in zip(one, other, tied, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
