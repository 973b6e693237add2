"""Embeddings and neighbours -> the job results that clients read, for the worker and the command line alike."""

import base64

import numpy as np

from shared.array_types import FloatArray
from shared.attributes.schema import AttributeSchema
from shared.catalogue.hierarchy import Hierarchy, Part, hierarchy_of, split_path
from shared.index.delta import DeltaIndex
from shared.index.facets import Facets
from shared.index.vector_index import included
from shared.jobs.contract import (
    CategoryAnswer,
    CategoryScore,
    CertainPath,
    EmbedResult,
    Encoding,
    Facet,
    FacetScope,
    Neighbour,
    SearchRequest,
    SearchResult,
)
from shared.model.bundle import BundleManifest
from shared.model.embedder import Embeddings

_TOP = 3


def probabilities(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Turn scores into probabilities: softmax of scores / temperature over the last axis.

    Temperature scaling: arXiv:1706.04599, section 4.2.

    Args:
        scores: (..., n_categories) float32, before softmax.
        temperature: above 0; from the bundle's manifest.

    Returns:
        (..., n_categories) float32 that sum to 1 over the last axis.
    """
    shifted = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    chances: FloatArray = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return chances


def category_answer(scores: FloatArray, model: BundleManifest) -> CategoryAnswer:
    """Build the category part of a result: the three most probable categories of one photo.

    Of categories that are paths of several levels it also says how much of the path is certain.

    Args:
        scores: (n_categories,) float32, before softmax.
        model: manifest of the model that gave them.
    """
    chances = probabilities(scores, model.temperature)
    best = np.argsort(-chances, kind="stable")[:_TOP].tolist()
    top = [CategoryScore(name=model.categories[i], probability=round(float(chances[i]), 6)) for i in best]
    chance = top[0].probability
    answer = CategoryAnswer(
        name=top[0].name, index=best[0], probability=chance, certain=chance >= model.abstain_below, top=top
    )
    hierarchy = hierarchy_of(model.categories)
    if hierarchy is None:
        return answer
    # Set even if there is none: a field that was never set is left out of the JSON.
    return answer.model_copy(update={"certain_path": _certain_path(answer, chances, hierarchy, model)})


def _certain_path(
    answer: CategoryAnswer, chances: FloatArray, hierarchy: Hierarchy, model: BundleManifest
) -> CertainPath | None:
    if answer.certain:
        part: Part | None = Part(split_path(answer.name), answer.probability)
    else:
        by_level, n_levels = model.abstain_below_by_level, len(hierarchy.levels)
        if len(by_level) != n_levels:  # of a bundle that was built before each level was calibrated
            by_level = n_levels * (model.abstain_below,)
        part = hierarchy.deepest_certain(chances, by_level)
    return part and CertainPath(name=part.name, path=list(part.path), probability=part.probability)


def embed_result(embeddings: Embeddings, encoding: Encoding, model: BundleManifest) -> EmbedResult:
    """Build the result of an embed job.

    Args:
        embeddings: of one photo: vectors (1, dim), scores (1, n_categories).
        encoding: of the embedding in the result: a list of floats, or base64 of little-endian float32.
        model: manifest of the model that made them.
    """
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
    embeddings: Embeddings, request: SearchRequest, index: DeltaIndex, model: BundleManifest
) -> SearchResult:
    """Search one version of the index and build the result of a search job.

    Args:
        embeddings: of the query: vectors (1, dim), scores (1, n_categories).
        request: `k`, filters and `distinct`.
        index: the snapshot under its pending changes.
        model: manifest of the model that made the embeddings.

    Raises:
        DimensionMismatch, IndexUnavailable, IndexDamaged: as `VectorIndex.search`.
    """
    neighbours, facets = _searched(embeddings.vectors[0], request, index)
    return SearchResult(
        category=category_answer(embeddings.scores[0], model),
        neighbours=neighbours,
        facets=facets,
        index_version=index.version,
        model_fingerprint=index.manifest.fingerprint,
    )


def _searched(
    query: FloatArray, request: SearchRequest, index: DeltaIndex
) -> tuple[list[Neighbour], dict[str, Facet] | None]:
    """The neighbours of a query, and the facets that the request asks for."""
    if not request.facets:
        return index.search(query, request), None
    if request.facet_scope is FacetScope.MATCHES:
        return index.search(query, request), index.count(request).answer()
    found = index.search(query, request.model_copy(update={"include": ("*",)}))
    schema = AttributeSchema(index.manifest.attributes)
    facets = Facets(schema, request.facets, index.manifest.categories)
    position = {name: number for number, name in enumerate(index.manifest.categories)}
    for hit in {hit.listing_id: hit for hit in reversed(found)}.values():
        facets.add(position[hit.category], hit.attributes or {})
    carried = (included(hit.attributes or {}, request.include) if request.include else None for hit in found)
    hits = [hit.model_copy(update={"attributes": one}) for hit, one in zip(found, carried, strict=True)]
    return hits, facets.answer()
