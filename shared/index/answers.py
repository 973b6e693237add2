"""Embeddings and neighbours -> the job results that clients read, for the worker and the command line alike."""

import base64
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from shared.array_types import FloatArray
from shared.attributes.schema import AttributeSchema
from shared.catalogue.hierarchy import Hierarchy, hierarchy_of, split_path
from shared.catalogue.hierarchy import Part as PathPart
from shared.errors import InvalidRequest
from shared.index.delta.index import DeltaIndex
from shared.index.matches import find_match
from shared.index.metadata.facets import Facets
from shared.index.query import WordsQuery
from shared.index.vector_index import LabelledRows, included
from shared.jobs.answers_contract import (
    CategoryAnswer,
    CategoryPart,
    CategoryScore,
    CertainPath,
    EmbedResult,
    Facet,
    Neighbour,
    SearchResult,
)
from shared.jobs.contract import (
    NO_WORDS,
    Encoding,
    FacetScope,
    ListingScore,
    PhotoRequest,
    SearchPreference,
    SearchRequest,
)
from shared.model.bundle import PROJECTED, BundleManifest
from shared.model.embedder import Embeddings
from shared.model.fusion import Answering, Evidence, Fusion, Part, joined_logs, photo_logs, softmax, text_logs
from shared.text.encoder import EncodedText, TextEncoder, with_evidence

_TOP = 3
_KIND_COUNTS = 2.0  # times as much as by default; measured: more finds fewer of the kind, too


def category_answer(evidence: Evidence, model: BundleManifest) -> CategoryAnswer:
    """Build the category part of a result: the three most probable categories of one query.

    Of categories that are paths of several levels it also says how much of the path is certain.

    Args:
        evidence: what is known of it.
        model: manifest of the model that gave the scores.
    """
    logs, answering, parts = _joined(evidence, model)
    chances = softmax(logs, answering.temperature)
    best = np.argsort(-chances, kind="stable")[:_TOP].tolist()
    top = [CategoryScore(name=model.categories[i], probability=round(float(chances[i]), 6)) for i in best]
    chance = top[0].probability
    answer = CategoryAnswer(
        name=top[0].name,
        index=best[0],
        probability=chance,
        certain=chance >= answering.abstain_below,
        top=top,
        parts=_parts(parts, logs, model),
    )
    hierarchy = hierarchy_of(model.categories)
    if hierarchy is None:
        return answer
    # Set even if there is none: a field that was never set is left out of the JSON.
    return answer.model_copy(update={"certain_path": _certain_path(answer, chances, hierarchy, answering)})


def _joined(evidence: Evidence, model: BundleManifest) -> tuple[FloatArray, Answering, dict[Part, FloatArray]]:
    """Join what is known of a category.

    Returns:
        scores (n_categories,) before the last softmax, what calibrates them, and the weighted logarithms of each part.
    """
    fusion, photo, words = model.fusion or Fusion(), None, None
    if evidence.scores is not None:
        if model.fusion is None:  # of a bundle that was built before there was a vote
            plain = Answering(
                temperature=model.temperature,
                abstain_below=model.abstain_below,
                abstain_below_by_level=model.abstain_below_by_level,
            )
            return evidence.scores, plain, {}
        photo = photo_logs(evidence.scores, evidence.votes, model.temperature, fusion.vote)
    if evidence.text_scores is not None:
        assert model.text is not None  # or the words had not been scored
        words = text_logs(evidence.text_scores, model.text.temperature)
    if words is None:
        assert photo is not None  # Evidence has one of the two
        return photo, fusion.photo, {}
    if photo is None:
        return words, fusion.words, {}
    weight = 0.5 if fusion.words_weight is None else fusion.words_weight
    both = joined_logs(photo, words, weight)
    return both, fusion.both, {Part.PHOTO: (1 - weight) * photo, Part.WORDS: weight * words}


def _parts(parts: dict[Part, FloatArray], joined: FloatArray, model: BundleManifest) -> list[CategoryPart]:
    """What each part says for itself; its share is by how far it sets the answer apart from the next."""
    if not parts:
        return []
    first, second = np.argsort(-joined, kind="stable")[:2].tolist()
    apart = {part: abs(float(logs[first] - logs[second])) for part, logs in parts.items()}
    total = sum(apart.values())
    weight = (model.fusion and model.fusion.words_weight) or 0.5
    told = []
    for part, logs in parts.items():
        own = softmax(logs / np.float32(weight if part is Part.WORDS else 1 - weight))
        best = int(own.argmax())
        told.append(
            CategoryPart(
                part=part.value,
                name=model.categories[best],
                probability=round(float(own[best]), 6),
                share=round(apart[part] / total, 4) if total else 1 / len(parts),
            )
        )
    return told


def _certain_path(
    answer: CategoryAnswer, chances: FloatArray, hierarchy: Hierarchy, answering: Answering
) -> CertainPath | None:
    if answer.certain:
        part: PathPart | None = PathPart(split_path(answer.name), answer.probability)
    else:
        by_level, n_levels = answering.abstain_below_by_level, len(hierarchy.levels)
        if len(by_level) != n_levels:  # of a bundle that was built before each level was calibrated
            by_level = n_levels * (answering.abstain_below,)
        part = hierarchy.deepest_certain(chances, by_level)
    return part and CertainPath(name=part.name, path=list(part.path), probability=part.probability)


@dataclass(frozen=True)
class Asked:
    """One query as the model sees it: photos, words, or both.

    Attributes:
        embeddings: of the photos: vectors (1, dim), scores (1, n_categories); None: there are none.
        text: the words; None: there are none, or none that are known.
    """

    embeddings: Embeddings | None
    text: EncodedText | None = None

    @cached_property
    def vector(self) -> FloatArray:
        """(dim,) float32, L2 norm 1: of the photos, or what the words map to."""
        if self.embeddings is not None:
            seen: FloatArray = self.embeddings.vectors[0]
            return seen
        assert self.text is not None  # a query has one of the two
        mapped: FloatArray = self.text.photo
        return mapped

    def voters(
        self, index: DeltaIndex, model: BundleManifest, own_listings: Collection[str] = ()
    ) -> LabelledRows | None:
        """The photos that vote on its category; None: none do.

        Args:
            index: whose photos vote.
            model: manifest of the model.
            own_listings: listings that the query is of; they do not vote.
        """
        vote = model.fusion.vote if model.fusion else None
        if vote is None or self.embeddings is None:
            return None
        return index.labelled(self.vector, vote.k, SearchRequest(k=1), without=own_listings)

    def evidence(self, voters: LabelledRows | None, model: BundleManifest) -> Evidence:
        """What is known of its category.

        Args:
            voters: see `voters`.
            model: manifest of the model.
        """
        heard = self.text is not None and (self.text.known or self.embeddings is None)
        text_scores = self.text.scores if self.text is not None and heard else None
        if self.embeddings is None:
            return Evidence(None, None, text_scores)
        votes = None
        if voters is not None and model.fusion and model.fusion.vote:
            votes = model.fusion.vote.shares(voters.scores, voters.categories, len(model.categories))
        return Evidence(self.embeddings.scores[0], votes, text_scores)

    def words_weight(self, request: SearchRequest, model: BundleManifest) -> float:
        """How much the words count in a search, 0..1."""
        if self.text is None or model.text is None:
            return 0.0
        fusion = model.fusion or Fusion()
        if request.text_weight is not None:
            return request.text_weight
        return fusion.text_weight_alone if self.embeddings is None else fusion.text_weight


def encoded_text(request: PhotoRequest, encoder: TextEncoder | None) -> EncodedText | None:
    """Encode the words of a request; None: it has none, or beside a photo none that are known.

    Args:
        request: its `text`.
        encoder: of the model; None: the model knows no words.

    Raises:
        InvalidRequest: the model knows no words, or none of those that stand alone.
    """
    if request.text is None:
        return None
    if encoder is None:
        raise InvalidRequest(NO_WORDS)
    encoded = encoder.encode(request.text)
    if encoded is None and request.without_photo:
        raise InvalidRequest("text: there is no word in it that says what the thing is; say it in words")
    return encoded


def embed_result(asked: Asked, encoding: Encoding, evidence: Evidence, model: BundleManifest) -> EmbedResult:
    """Build the result of an embed job.

    Args:
        asked: the photos or words.
        encoding: of the embedding in the result: a list of floats, or base64 of little-endian float32.
        evidence: of its category.
        model: manifest of the model that embedded them.
    """
    vector = asked.vector.astype("<f4")
    encoded = base64.b64encode(vector.tobytes()).decode() if encoding is Encoding.BASE64 else vector.tolist()
    scores = evidence.text_scores if evidence.scores is None else evidence.scores
    assert scores is not None  # Evidence has one of the two
    return EmbedResult(
        category=category_answer(evidence, model),
        scores=scores.tolist(),
        embedding=encoded,
        dimension=len(vector),
        model_fingerprint=model.fingerprint,
    )


def search_result(asked: Asked, request: SearchRequest, index: DeltaIndex, model: BundleManifest) -> SearchResult:
    """Search one version of the index and build the result of a search job.

    Args:
        asked: the photos, the words, or both.
        request: `k`, filters, `distinct`, `text_weight` and `prefer`.
        index: the snapshot under its pending changes.
        model: manifest of the model that embedded the query.

    Raises:
        DimensionMismatch, IndexUnavailable, IndexDamaged: as `VectorIndex.search`.
    """
    own = own_listings(request, index)
    voters = asked.voters(index, model, own)
    evidence = asked.evidence(voters, model)
    query, words = _compared(asked, request, evidence, model)
    neighbours, facets = _searched(query, words, request, index)
    match = None
    if model.matches is not None and asked.embeddings is not None:
        by_photo_alone = words is None and request.prefer is None and request.listing_score is not ListingScore.MEAN
        found = neighbours if by_photo_alone else ()
        match = find_match(asked.embeddings, request, index, model.matches, own, voters, found)
    return SearchResult(
        category=category_answer(evidence, model),
        neighbours=neighbours,
        match=match,
        facets=facets,
        index_version=index.version,
        model_fingerprint=index.manifest.fingerprint,
    )


def own_listings(request: PhotoRequest, index: DeltaIndex) -> set[str]:
    """The listings that a query is of, as far as it says so."""
    named = {request.listing_id, request.exclude_listing if isinstance(request, SearchRequest) else None}
    if request.image_id is not None and (photo := index.photo_of(request.image_id)):
        named.add(photo.listing_id)
    return {one for one in named if one is not None}


def _compared(
    asked: Asked, request: SearchRequest, evidence: Evidence, model: BundleManifest
) -> tuple[FloatArray, WordsQuery | None]:
    """What a search compares: the photo's vector, or what words map to, and the words.

    Where both are compared, each of the two vectors carries the category by both.
    """
    vector, text, weight = asked.vector, asked.text, asked.words_weight(request, model)
    projected = asked.embeddings is not None and model.embedding_layer == PROJECTED
    if text is not None and asked.embeddings is not None and 0 < weight < 1:
        logs, answering, _ = _joined(evidence, model)
        chances = softmax(logs, answering.temperature)
        text = text._replace(vector=with_evidence(text.vector, chances))
        vector = with_evidence(vector, chances) if projected else vector
    if request.prefer is not None:
        counts = _KIND_COUNTS if request.prefer is SearchPreference.SAME_KIND else 0.0
        vector = _weighed(vector, counts, len(model.categories)) if projected else vector
        text = text and text._replace(vector=_weighed(text.vector, counts, len(model.categories)))
    if not text or not model.text or weight <= 0:
        return vector, None
    return vector, WordsQuery.of(text, weight, model.text, alone=asked.embeddings is None)


def _weighed(vector: FloatArray, counts: float, n_categories: int) -> FloatArray:
    """Have what a vector says of the category count more or less, beside what else it says: (dim,), L2 norm 1."""
    weighed = vector.copy()
    weighed[-n_categories:] *= np.float32(counts)
    scaled: FloatArray = weighed / np.float32(max(float(np.linalg.norm(weighed)), 1e-12))
    return scaled


def _searched(
    query: FloatArray, words: WordsQuery | None, request: SearchRequest, index: DeltaIndex
) -> tuple[list[Neighbour], dict[str, Facet] | None]:
    """The neighbours of a query, and the facets that the request asks for."""
    if not request.facets:
        return index.search(query, request, words=words), None
    if request.facet_scope is FacetScope.MATCHES:
        return index.search(query, request, words=words), index.count(request).answer()
    found = index.search(query, request.model_copy(update={"include": ("*",)}), words=words)
    schema = AttributeSchema(index.manifest.attributes)
    facets = Facets(schema, request.facets, index.manifest.categories)
    position = {name: number for number, name in enumerate(index.manifest.categories)}
    listings = {hit.listing_id: (position[hit.category], hit.attributes or {}) for hit in reversed(found)}
    facets.add(list(listings.values()))
    carried = (included(hit.attributes or {}, request.include) if request.include else None for hit in found)
    hits = [hit.model_copy(update={"attributes": one}) for hit, one in zip(found, carried, strict=True)]
    return hits, facets.answer()
