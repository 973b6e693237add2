"""Embeddings and neighbours -> the results clients read. The worker and the command line answer alike."""

import base64

import numpy as np

from shared.catalogue import CATEGORIES
from shared.jobs import CategoryAnswer, CategoryScore, EmbedResult, Encoding, SearchRequest, SearchResult
from shared.vision.embedder import Embeddings, FloatArray
from shared.vision.index import IndexSnapshot
from shared.vision.overlay import Overlay

_TOP = 3


def probabilities(scores: FloatArray) -> FloatArray:
    """Softmax over the last axis: (..., 13) scores -> (..., 13), summing to 1."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    chances: FloatArray = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return chances


def category_answer(scores: FloatArray) -> CategoryAnswer:
    """The best categories of one photo from its (13,) scores."""
    chances = probabilities(scores)
    best = np.argsort(-chances, kind="stable")[:_TOP].tolist()
    top = [CategoryScore(name=CATEGORIES[i], probability=round(float(chances[i]), 6)) for i in best]
    return CategoryAnswer(name=top[0].name, index=best[0], probability=top[0].probability, top=top)


def embed_result(embeddings: Embeddings, encoding: Encoding, fingerprint: str) -> EmbedResult:
    """The answer to an embed job, from vectors (1, dim) and scores (1, 13)."""
    vector = embeddings.vectors[0].astype("<f4")
    encoded = base64.b64encode(vector.tobytes()).decode() if encoding is Encoding.BASE64 else vector.tolist()
    return EmbedResult(
        category=category_answer(embeddings.scores[0]),
        scores=embeddings.scores[0].tolist(),
        embedding=encoded,
        dimension=len(vector),
        model_fingerprint=fingerprint,
    )


def search_result(embeddings: Embeddings, request: SearchRequest, index: IndexSnapshot | Overlay) -> SearchResult:
    """The answer to a search job, from vectors (1, dim) and scores (1, 13), out of one snapshot."""
    return SearchResult(
        category=category_answer(embeddings.scores[0]),
        neighbours=index.search(embeddings.vectors[0], request),
        index_version=index.version,
        model_fingerprint=index.manifest.fingerprint,
    )
