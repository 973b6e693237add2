"""What a re-ranker trained on simulated, position-biased clicks gains, and what it costs a search.

`--home HOME --catalogue DIR` searches the index of an installation; its listings are halved, feedback is on searches by
photos of one half, and nDCG@4 is measured on those of the other. Somebody wants other photos of the listing, and things
of the same full category whose price differs by at most half. Nothing here is asserted.
"""

import argparse
import csv
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Set
from pathlib import Path
from zlib import crc32

import numpy as np

from pipeline.ranking.train import train_reranker
from shared.artifacts.rerankers import reranker_store
from shared.artifacts.snapshots import bundle_store, index_store
from shared.attributes.schema import of_payload
from shared.catalogue.categories import CataloguePhoto
from shared.index.delta.index import DeltaIndex
from shared.index.reranking import promoted_reranker, reranked_result
from shared.index.snapshot import open_snapshot
from shared.jobs.contract import SearchRequest
from shared.model.bundle import open_bundle
from tests.benchmarks.support.report import Report
from tests.support.clicks import People, geometric, reciprocal

NEAR = math.log(1.5)
K = 12


def main() -> None:
    """Print tables; write `var/bench/feedback.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True, help="of an installation with an index")
    parser.add_argument("--catalogue", type=Path, required=True, help="that the index was built from")
    parser.add_argument("--searches", type=int, default=3000, help="with clicks")
    parser.add_argument("--queries", type=int, default=600, help="that are measured")
    parser.add_argument("--only", help="kinds of queries with this in their name")
    options = parser.parse_args()
    bundle = open_bundle(bundle_store(options.home))
    index = DeltaIndex(
        open_snapshot(index_store(options.home), fingerprint=bundle.manifest.fingerprint), lambda put: None
    )
    photos = list(index.snapshot.photos())
    wanted = _wanted(options.catalogue, photos)
    told: list[CataloguePhoto] = []
    unseen: list[CataloguePhoto] = []
    for photo in photos:
        (told if crc32(photo.listing_id.encode()) % 2 else unseen).append(photo)
    unseen = [unseen[i] for i in np.random.default_rng(5).permutation(len(unseen))[: options.queries]]
    kinds = {
        "a photo that was sent": lambda photo: SearchRequest(k=K),
        "sent, with a title": lambda photo: SearchRequest(k=K, text=_title(photo)),
        "more like a listing": lambda photo: SearchRequest(k=K, listing_id=photo.listing_id),
    }
    kinds["all three mixed"] = lambda photo: list(kinds.values())[crc32(photo.image_id.encode()) % 3](photo)
    report = Report("feedback", photos=len(photos), k=K, searches=options.searches, queries=len(unseen))
    for name, asked in kinds.items():
        if options.only and options.only not in name:
            continue
        for examined in (reciprocal, geometric):
            for blind in (False, True):
                people = People(index, bundle, wanted, asked, examined, blind)
                with tempfile.TemporaryDirectory() as storage:
                    began = time.perf_counter()
                    feedback = list(people.sessions(told, options.searches))
                    searched_s = time.perf_counter() - began
                    trained = train_reranker(Path(storage), feedback, index, bundle.manifest, lambda line: None)
                    trained_s = time.perf_counter() - began - searched_s
                    reranker = promoted_reranker(reranker_store(Path(storage)), bundle.manifest.fingerprint)
                gate = next((g.detail for g in trained.manifest.gates if g.name == "feedback_ndcg_at_4"), "")
                before, after = people.ndcg(unseen, None), people.ndcg(unseen, reranker)
                report.add(
                    "nDCG@4 of unseen listings", query=name, looked_at=examined.__name__,
                    clicks="blind" if blind else "by what is wanted", promoted=trained.version is not None,
                    before=round(before, 4), after=round(after, 4), gain=round(after - before, 4),
                    failed=",".join(g.name for g in trained.manifest.gates if not g.passed), gate=gate,
                    train_s=round(trained_s, 1),
                )  # fmt: skip
                if reranker and name == "all three mixed":
                    for of, single in list(kinds.items())[:3]:
                        alone = People(index, bundle, wanted, single)
                        before, after = alone.ndcg(unseen, None), alone.ndcg(unseen, reranker)
                        report.add("by kind of query", query=of, looked_at=examined.__name__, before=round(before, 4),
                                   after=round(after, 4), gain=round(after - before, 4))  # fmt: skip
                if reranker and not blind and examined is reciprocal:
                    weights = {k: round(v, 3) for k, v in reranker.weights.model_dump().items()}
                    report.add("weights", query=name, **weights)
                    ms: dict[bool, list[float]] = {True: [], False: []}
                    for photo in unseen:
                        for ranked in (True, False):
                            query, request = people.query(photo), people.request(photo)
                            began = time.thread_time()  # other programs' work is none of it
                            reranked_result(query, request, index, bundle.manifest, reranker if ranked else None)
                            ms[ranked].append(1e3 * (time.thread_time() - began))
                    for q in (50, 95):
                        without, with_it = (float(np.percentile(ms[ranked], q)) for ranked in (False, True))
                        report.add("cost of a search", query=name, p=q, without_ms=round(without, 3),
                                   with_ms=round(with_it, 3), more_ms=round(with_it - without, 3))  # fmt: skip
    report.finish()


def _title(photo: CataloguePhoto) -> str:
    return str(of_payload(photo.payload).get("title", ""))


def _price(photo: CataloguePhoto) -> float | None:
    price = of_payload(photo.payload).get("price")
    return float(price["amount"]) or None if isinstance(price, dict) else None  # type: ignore[arg-type]


def _wanted(catalogue: Path, photos: list[CataloguePhoto]):  # type: ignore[no-untyped-def]
    with (catalogue / "Products.csv").open(newline="", encoding="utf-8") as file:
        path_of = {row["id"]: row["category"] for row in csv.DictReader(file)}
    by_path: dict[str, list[tuple[CataloguePhoto, float | None]]] = defaultdict(list)
    for photo in photos:
        by_path[path_of.get(photo.listing_id, photo.listing_id)].append((photo, _price(photo)))

    def wanted(photo: CataloguePhoto) -> Set[str]:
        own = _price(photo)
        return {
            other.image_id
            for other, price in by_path[path_of.get(photo.listing_id, photo.listing_id)]
            if other.image_id != photo.image_id
            and (other.listing_id == photo.listing_id or (own and price and abs(math.log(price / own)) <= NEAR))
        }

    return wanted


if __name__ == "__main__":
    main()
