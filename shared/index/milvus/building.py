"""Fills a Milvus collection with the photos of a new version, and tunes how it is searched."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.snapshots import IndexFacts, IndexKind
from shared.catalogue.categories import CataloguePhoto
from shared.errors import IndexDamaged
from shared.index.metadata.rows import PhotoTable
from shared.index.milvus.index import MESSAGE_BYTES, QUERIES_AT_ONCE, listing_key, search_rows
from shared.index.milvus.server import VECTOR, MilvusServer, Tick
from shared.index.vectors.ann import exact_nearest
from shared.index.vectors.compression import EXACT_UP_TO, TARGET_RECALL, n_lists_for
from shared.model.embedder import Embeddings

_SEGMENT = 131_072  # vectors in one of Milvus's segments: 1 GiB of 2048 dimensions
_MIN_PROBES = 8
_N_QUERIES = 512
_TIE = 2e-6  # float32 products of equal vectors differ by less, and they are rounded


def fill_collection(
    server: MilvusServer,
    collection: str,
    directory: Path,
    embeddings: Embeddings,
    *,
    exact_up_to: int = EXACT_UP_TO,
    tick: Tick = lambda: None,
) -> IndexFacts:
    """Create a collection, insert the photos of a directory's table with their embeddings, index and load it.

    Args:
        server: connection to Milvus.
        collection: name of the new collection.
        directory: of the snapshot, with the photos' table.
        embeddings: one per row of the table: vectors (n, dim), scores (n, n_categories), float32.
        exact_up_to: more vectors than this get inverted lists (IVF_FLAT), tuned on a sample.
        tick: called between requests; an exception it raises ends the work.

    Returns:
        how the collection is searched, with the recall that was measured.

    Raises:
        IndexDamaged: an embedding is not finite, or Milvus has fewer rows than were inserted.
        IndexUnavailable: the server does not answer, or refuses.
    """
    vectors, scores = embeddings
    server.create(collection, vectors.shape[1], scores.shape[1])
    table = PhotoTable(directory)
    by_category = [0] * scores.shape[1]
    batch: list[dict[str, Any]] = []
    for row, photo in enumerate(table):
        if not (np.isfinite(vectors[row]).all() and np.isfinite(scores[row]).all()):
            raise IndexDamaged("not every number of an embedding is finite; the model's weights are unusable")
        by_category[photo.category] += 1
        batch.append(_record(row, photo, vectors[row], scores[row]))
        if len(batch) * 4 * vectors.shape[1] >= MESSAGE_BYTES or row == len(table) - 1:
            server.insert(collection, batch)
            batch = []
            tick()
    n_lists = 0 if len(table) <= exact_up_to else n_lists_for(min(len(table), _SEGMENT))
    server.index(collection, "IVF_FLAT" if n_lists else "FLAT", {"nlist": n_lists} if n_lists else {}, tick)
    server.load(collection, tick)
    if (n_there := server.count(collection)) != len(table):
        raise IndexDamaged(f"Milvus was given {len(table)} photos and has {n_there} of them in {collection}")
    facts = IndexFacts(
        kind=IndexKind.MILVUS, recall_at_10=1, n_lists=n_lists, collection=collection, by_category=tuple(by_category)
    )
    return _tuned(server, facts, vectors) if n_lists else facts


def _record(row: int, photo: CataloguePhoto, vector: FloatArray, scores: FloatArray) -> dict[str, Any]:
    return {
        "row": row,
        "image_id": photo.image_id,
        "listing_id": photo.listing_id,
        "listing_key": listing_key(photo.listing_id),
        "category": photo.category,
        VECTOR: np.asarray(vector, dtype=np.float32),
        "scores": scores.tolist(),
    }


def _tuned(server: MilvusServer, facts: IndexFacts, vectors: FloatArray, seed: int = 17) -> IndexFacts:
    """Find the fewest probes whose recall at 10 reaches TARGET_RECALL by two standard errors of the sample."""
    rng = np.random.default_rng(seed)
    queries = vectors[np.sort(rng.choice(len(vectors), min(len(vectors), _N_QUERIES), replace=False))]
    # A row finds itself first, which proves nothing: search for eleven, and do not count it.
    worst = exact_nearest(vectors, queries, 11)[0][:, -1] - _TIE
    n_probes = min(_MIN_PROBES, facts.n_lists)
    while True:
        tried = facts.model_copy(update={"n_probes": n_probes})
        right = [
            sum(score >= least for score, _ in hits) - 1
            for start in range(0, len(queries), QUERIES_AT_ONCE)
            for hits, least in zip(
                search_rows(server, facts.collection, list(queries[start : start + QUERIES_AT_ONCE]), 11, n_probes),
                worst[start : start + QUERIES_AT_ONCE],
                strict=True,
            )
        ]
        recalls = np.clip(right, 0, 10) / 10
        if n_probes >= facts.n_lists or recalls.mean() - 2 * recalls.std() / math.sqrt(len(recalls)) >= TARGET_RECALL:
            return tried.model_copy(update={"recall_at_10": round(float(recalls.mean()), 4)})
        n_probes = min(2 * n_probes, facts.n_lists)
