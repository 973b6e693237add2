"""Embeddings and neighbours -> the results clients read. The worker and the command line answer alike."""

import base64

import numpy as np

from shared.catalogue.categories import CATEGORIES
from shared.index.delta import DeltaIndex
from shared.index.vector_index import VectorIndex
from shared.jobs.contract import CategoryAnswer, CategoryScore, EmbedResult, Encoding, SearchRequest, SearchResult
from shared.model.bundle import BundleManifest
from shared.model.embedder import Embeddings, FloatArray

_TOP = 3


def probabilities(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Softmax of scores / temperature over the last axis: (..., 13) scores -> (..., 13), summing to 1.

    Temperature scaling: arXiv:1706.04599, section 4.2.
    """
    shifted = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    chances: FloatArray = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return chances


def category_answer(scores: FloatArray, model: BundleManifest) -> CategoryAnswer:
    """The best categories of one photo from the (13,) scores that a model gave it."""
    chances = probabilities(scores, model.temperature)
    best = np.argsort(-chances, kind="stable")[:_TOP].tolist()
    top = [CategoryScore(name=CATEGORIES[i], probability=round(float(chances[i]), 6)) for i in best]
    chance = top[0].probability
    return CategoryAnswer(
        name=top[0].name, index=best[0], probability=chance, certain=chance >= model.abstain_below, top=top
    )


def embed_result(embeddings: Embeddings, encoding: Encoding, model: BundleManifest) -> EmbedResult:
    """The answer to an embed job, from vectors (1, dim) and scores (1, 13)."""
    vector = embeddings.vectors[0].astype("<f4")
    encoded = base64.b64encode(vector.tobytes()).decode() if encoding is Encoding.BASE64 else vector.tolist()
    return EmbedResult(
        category=category_answer(embeddings.scores[0], model),
        scores=embeddings.scores[0].tolist(),
        embedding=encoded,
        dimension=len(vector),
        model_fingerprint=model.fingerprint,
    )


def search_result(
    embeddings: Embeddings, request: SearchRequest, index: VectorIndex | DeltaIndex, model: BundleManifest
) -> SearchResult:
    """The answer to a search job, from vectors (1, dim) and scores (1, 13), out of one snapshot."""
    return SearchResult(
        category=category_answer(embeddings.scores[0], model),
        neighbours=index.search(embeddings.vectors[0], request),
        index_version=index.version,
        model_fingerprint=index.manifest.fingerprint,
    )
