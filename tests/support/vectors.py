"""A small synthetic catalogue of random vectors, and what to search it with."""

from pathlib import Path

import numpy as np

from shared.array_types import FloatArray
from shared.artifacts.store import ArtifactStore
from shared.catalogue.categories import CataloguePhoto
from shared.index.milvus.server import MilvusServer
from shared.index.vectors.compression import EXACT_UP_TO
from shared.model.embedder import Embeddings
from tests.support.snapshots import write_snapshot

DIMENSION = 64
FINGERPRINT = "f" * 64
N_PHOTOS = 300


def unit_rows(n: int, seed: int, dimension: int = DIMENSION) -> FloatArray:
    """(n, dimension) float32 with L2 norm 1."""
    rows = np.random.default_rng(seed).standard_normal((n, dimension))
    unit: FloatArray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def catalogue_photo(row: int, listing_id: str, category: int) -> CataloguePhoto:
    return CataloguePhoto(f"p{row}", listing_id, category, Path("unused.jpg"))


PHOTOS = [catalogue_photo(row, f"l{row // 3}", row // 3 % 13) for row in range(N_PHOTOS)]  # three photos a listing
VECTORS_OF_PHOTOS = unit_rows(N_PHOTOS, seed=1)
SCORES_OF_PHOTOS = np.random.default_rng(2).standard_normal((N_PHOTOS, 13)).astype(np.float32)


def write(
    store: ArtifactStore,
    photos: list[CataloguePhoto] = PHOTOS,
    vectors: FloatArray = VECTORS_OF_PHOTOS,
    fingerprint: str = FINGERPRINT,
    exact_up_to: int = EXACT_UP_TO,
    server: MilvusServer | None = None,
) -> str:
    return write_snapshot(
        store,
        photos,
        Embeddings(vectors, SCORES_OF_PHOTOS[: len(photos)]),
        fingerprint=fingerprint,
        catalogue="synthetic",
        catalogue_digest="d1",
        exact_up_to=exact_up_to,
        server=server,
    )


QUERIES = unit_rows(5, seed=3)
QUERY = QUERIES[0]
SIMILARITY = VECTORS_OF_PHOTOS.astype(np.float64) @ QUERY.astype(np.float64)  # (n,)


def ranked(rows: list[int]) -> list[int]:
    """Rows by numpy's cosine similarity to QUERY, most similar first."""
    return sorted(rows, key=lambda row: -SIMILARITY[row])
