"""Re-ranking: the results of a search in the order that people's feedback speaks for.

A logistic model weighs what is known of each result: how similar it is, whether its category is the query's, words,
price, age. Where on the page a result stood is no feature of it: training takes that out.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, Self

import numpy as np
from pydantic import JsonValue

from shared.array_types import DoubleArray
from shared.artifacts.rerankers import RankingWeights, RerankerManifest, read_reranker
from shared.artifacts.store import ArtifactStore
from shared.attributes.schema import Attribute, AttributeSchema, AttributeType, Values, of_payload
from shared.attributes.values import parse_time
from shared.feedback.contract import Impression
from shared.index.answers import Asked, search_result
from shared.index.delta.index import DeltaIndex
from shared.jobs.answers_contract import CategoryScore, SearchResult
from shared.jobs.contract import FacetScope, SearchRequest
from shared.model.bundle import BundleManifest
from shared.text.features import tokens

FEATURES = tuple(RankingWeights.model_fields)
_MORE = 24  # results are ranked than are wanted
_MOST = 50  # are ranked; what a search finds after them stays where it is
_SAME_PHOTO = 0.02  # as of `shared.model.matching`
_LEAST_PROBABILITY = 1e-4
_MOST_PRICE_STEPS = 1.0  # e-fold; a price further away is as good as any
_AGREEING = 0.1  # of similarity, by which a result's say in the agreement of prices falls to 1 / e
_DAY_S = 86_400


@dataclass(frozen=True)
class Reranker:
    """A promoted re-ranker.

    Attributes:
        version: in the artifact store.
        weights: of the features.
    """

    version: str
    weights: RankingWeights

    @classmethod
    def of(cls, version: str, manifest: RerankerManifest, fingerprint: str) -> Self | None:
        """Make the re-ranker of a model's searches; None: this one changes nothing, or is another model's."""
        if manifest.weights is None or manifest.fingerprint != fingerprint:
            return None
        return cls(version, manifest.weights)

    def order(self, features: DoubleArray) -> list[int]:
        """Order results, best first; those that are worth the same stay as they were.

        Args:
            features: (n, len(FEATURES)), from `ranking_features`.
        """
        weights = np.array([getattr(self.weights, name) for name in FEATURES])
        worth = np.round((features * weights).sum(axis=1), 9)
        order: list[int] = np.argsort(-worth, kind="stable").tolist()
        return order


def promoted_reranker(store: ArtifactStore, fingerprint: str) -> Reranker | None:
    """Read the promoted re-ranker of a model's searches; None: there is none, or it is another model's.

    Raises:
        RerankerMissing, RerankerDamaged: it is not there, or not what was written.
    """
    version = store.current()
    return None if version is None else Reranker.of(version, read_reranker(store, version), fingerprint)


class RankedResult(NamedTuple):
    """A result of a search.

    Attributes:
        category: of its listing.
        score: its similarity to the query.
    """

    listing_id: str
    category: str
    score: float


class RankedQuery(NamedTuple):
    """What is known of a query.

    Attributes:
        text: its words; None: there are none.
        listing_id: the listing that it is of; None: of none.
        categories: the most probable ones.
    """

    text: str | None
    listing_id: str | None
    categories: Sequence[CategoryScore]


def ranking_features(results: Sequence[RankedResult], query: RankedQuery, index: DeltaIndex) -> DoubleArray:
    """Compute what results are ranked by; more of a feature is meant to be better.

    Args:
        results: n of one search.
        query: what they were found for.
        index: where the listings' attributes are: `title`, or else the first text; the first price; the first time.

    Returns:
        (n, len(FEATURES)): `score`, the similarity; `nearness`, minus the logarithm of its distance; `category`, the
        logarithm of the probability that the query is of the result's category, which of a listing of the index is
        known; `words`, the share of words that the query, or the title of its listing, and the result's title have in
        common, 0..1; `price`, minus the logarithm of how many times dearer or cheaper it is than the query's listing;
        `typical_price`, than the median of the results, where the query is of no listing with a price; `recency`, minus
        the logarithm of its age in days beside the newest in the index; `price_agreement`, minus the mean logarithm of
        how many times dearer or cheaper it is than each result, the most similar ones above all. What a listing lacks
        counts as the mean of the others.
    """
    schema = AttributeSchema(index.manifest.attributes)
    first = {attribute.type: attribute for attribute in reversed(tuple(schema))}
    named = schema.get("title")
    title = named if named and named.type is AttributeType.TEXT else first.get(AttributeType.TEXT)
    price, time = first.get(AttributeType.PRICE), first.get(AttributeType.TIME)
    values = {one.listing_id: _values(one.listing_id, index) for one in results}
    own: Values = {} if query.listing_id is None else _values(query.listing_id, index)
    titles, prices, times = (
        [_value(attribute, values[one.listing_id]) for one in results] for attribute in (title, price, time)
    )
    scores = np.array([one.score for one in results], dtype=np.float64)
    columns = (
        scores,
        -np.log(1 + _SAME_PHOTO - np.minimum(scores, 1)),
        _category_evidence(results, query, index),
        _common_words(titles, query.text or _value(title, own)),
        *(_or_mean(distances) for distances in _price_distances(prices, _value(price, own))),
        _or_mean(_recencies(times, time)),
        _or_mean(_price_agreement(prices, scores)),
    )
    return np.stack(columns, axis=1)


def reranked_result(
    asked: Asked, request: SearchRequest, index: DeltaIndex, model: BundleManifest, reranker: Reranker | None
) -> SearchResult:
    """Search as `search_result` does, and bring the results into the order of a re-ranker.

    A search that asks for an order of its own, by `prefer` or `listing_score`, keeps that.

    Args:
        asked, request, index, model: as of `search_result`, which raises the errors.
        reranker: None: results stay as they are.
    """
    if reranker is None or request.prefer is not None or request.listing_score is not None:
        return search_result(asked, request, index, model)
    # Facets of the hits count the hits: there are to be no more of them.
    counts_hits = request.facets and request.facet_scope is FacetScope.HITS
    k = request.k if counts_hits else max(request.k, min(_MOST, request.k + _MORE))
    found = search_result(asked, request.model_copy(update={"k": k}), index, model)
    first = found.neighbours[:_MOST]
    features = ranking_features(
        [RankedResult(one.listing_id, one.category, one.score) for one in first],
        RankedQuery(request.text, own_listing(request, index), found.category.top),
        index,
    )
    order = [*reranker.order(features), *range(len(first), len(found.neighbours))]
    neighbours = [
        found.neighbours[place].model_copy(update={"rank": rank})
        for rank, place in enumerate(order[: request.k], start=1)
    ]
    return found.model_copy(update={"neighbours": neighbours, "reranker_version": reranker.version})


def own_listing(query: SearchRequest | Impression, index: DeltaIndex) -> str | None:
    """The listing that a query is of; None: it is of none, or of one that is gone."""
    if query.listing_id is not None or query.image_id is None:
        return query.listing_id
    photo = index.photo_of(query.image_id)
    return photo and photo.listing_id


def _values(listing_id: str, index: DeltaIndex) -> Values:
    return of_payload(index.payload_of(listing_id))


def _value(attribute: Attribute | None, values: Values) -> JsonValue:
    return None if attribute is None else values.get(attribute.name)


def _category_evidence(results: Sequence[RankedResult], query: RankedQuery, index: DeltaIndex) -> DoubleArray:
    own = None if query.listing_id is None else index.category_of(query.listing_id)
    known = {one.name: one.probability for one in query.categories} if own is None else {own: 1.0}
    others = (1 - sum(known.values())) / max(1, len(index.manifest.categories) - len(known))
    chances = [known.get(one.category, others) for one in results]
    evidence: DoubleArray = np.log(np.maximum(chances, _LEAST_PROBABILITY))
    return evidence


def _common_words(titles: Sequence[JsonValue], text: JsonValue) -> DoubleArray:
    """The cosine of the angle between sets of words, (n,)."""
    asked = set(tokens(str(text or "")))
    found = (set(tokens(str(title or ""))) for title in titles)
    return np.array([len(asked & words) / math.sqrt(max(1, len(asked) * len(words))) for words in found])


def _price_distances(prices: Sequence[JsonValue], own: JsonValue) -> tuple[DoubleArray, DoubleArray]:
    """Minus the logarithm of the ratio to the own price and to the median, (n,) each; nan where there is none."""
    amounts = list(map(_amount, prices))
    unknown = np.full(len(amounts), np.nan)
    if reference := _amount(own):
        return _ratios(amounts, reference), unknown
    known = [amount for amount in amounts if amount is not None]
    if not known:
        return unknown, unknown
    [(currency, _)] = Counter(currency for currency, _ in known).most_common(1)
    return unknown, _ratios(amounts, (currency, median(amount for code, amount in known if code == currency)))


def _ratios(amounts: Sequence[tuple[str, float] | None], reference: tuple[str, float]) -> DoubleArray:
    currency, amount = reference
    return np.array(
        [
            -min(abs(math.log(one[1] / amount)), _MOST_PRICE_STEPS) if one and one[0] == currency else math.nan
            for one in amounts
        ]
    )


def _amount(value: JsonValue) -> tuple[str, float] | None:
    """Currency and amount of a price; None: there is none, or it is for nothing."""
    if not isinstance(value, Mapping):
        return None
    amount = value.get("amount")
    return (str(value.get("currency", "")), float(amount)) if isinstance(amount, int | float) and amount > 0 else None


def _price_agreement(prices: Sequence[JsonValue], scores: DoubleArray) -> DoubleArray:
    """Minus the mean logarithm of the ratios to all prices, the more similar results saying more; nan without a price.

    A thing that was only photographed has about the price of what looks most like it.
    """
    amounts = list(map(_amount, prices))
    logs = np.array([math.log(one[1]) if one else math.nan for one in amounts])
    currencies = np.array([one[0] if one else "" for one in amounts])
    ratios = np.minimum(np.abs(logs[:, None] - logs), _MOST_PRICE_STEPS)
    comparable = (currencies[:, None] == currencies) & ~np.isnan(ratios)
    counts = np.where(comparable, np.exp((scores - scores.max(initial=0)) / _AGREEING), 0)
    with np.errstate(invalid="ignore"):
        mean: DoubleArray = (counts * np.nan_to_num(ratios)).sum(axis=1) / counts.sum(axis=1)
    return -mean


def _recencies(times: Sequence[JsonValue], time: Attribute | None) -> DoubleArray:
    """Minus the logarithm of the age in days, (n,); nan without a time."""
    if time is None or not time.quantiles:
        return np.full(len(times), np.nan)
    moments = (parse_time(str(one or "")) for one in times)
    ages_s = [math.nan if moment is None else max(0.0, time.quantiles[-1] - moment.timestamp()) for moment in moments]
    recencies: DoubleArray = -np.log1p(np.array(ages_s) / _DAY_S)
    return recencies


def _or_mean(values: DoubleArray) -> DoubleArray:
    """Values beside their mean, (n,); 0 where there is none."""
    known = values[~np.isnan(values)]
    return np.nan_to_num(values - known.mean()) if len(known) else np.zeros(len(values))
