"""What jobs about photos answer: categories, neighbours, facets and matches, as models stored and sent as JSON.

Docstrings of these models are the descriptions of the API's OpenAPI document.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from shared.attributes.schema import AttributeType, ValuesJson


class Contract(BaseModel):
    """Unknown fields are ignored: a process of a newer version may have written them.

    What clients send is read more strictly, by `api.http.options`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


def is_none(value: object) -> bool:
    """Whether a field is None, so that it is left out of the JSON."""
    return value is None


def is_false(value: object) -> bool:
    """Whether a field is false."""
    return value is False


def is_empty(names: Sequence[object]) -> bool:
    """Whether a field has nothing in it."""
    return not names


class CategoryScore(Contract):
    """A category and its calibrated probability."""

    name: str
    probability: float


class CertainPath(Contract):
    """As much of a category's path, from the root, as is probable enough to rely on."""

    name: str = Field(description='the levels joined by " / "')
    path: list[str] = Field(description="the levels, the root's name first", min_length=1)
    probability: float = Field(description="calibrated: how often the photo's category is this or one below it")


class CategoryPart(Contract):
    """What one part of a query, its photo or its words, says of the category."""

    part: Literal["photo", "words"]
    name: str = Field(description="its most probable category")
    probability: float
    share: float = Field(description="of the answer that is owed to it, 0..1")


class CategoryAnswer(Contract):
    """The most probable category first; `top` holds the best three."""

    name: str
    index: int
    probability: float = Field(description="calibrated: how often such an answer is right")
    certain: bool = Field(True, description="false: too improbable to rely on, by the threshold the model came with")
    top: list[CategoryScore]
    certain_path: CertainPath | None = Field(
        None,
        description="only of categories of several levels: where `certain` the category itself, else the deepest level "
        "above it that is; null: not even a root is",
    )

    parts: list[CategoryPart] = Field(
        [], exclude_if=is_empty, description="only with `text`: what photo and words say each for itself"
    )

    @model_serializer(mode="wrap")
    def _without_levels(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]
        # A return type would stand in the OpenAPI document instead of the fields.
        fields = serialize(self)
        if "certain_path" not in self.model_fields_set:
            fields.pop("certain_path", None)
        return fields


class Neighbour(Contract):
    """One catalogue photo that a search found."""

    rank: int  # 1 is the most similar
    image_id: str
    listing_id: str
    category: str
    score: float  # cosine similarity, -1..1; with `listing_score=mean` the listing's
    row: int  # position in the index snapshot
    attributes: ValuesJson | None = Field(
        None, exclude_if=is_none, description="those of `include` that the listing has; only with `include`"
    )
    listing_photos: int | None = Field(
        None, exclude_if=is_none, description="photos of the listing in the index; only with `listing_score`"
    )


class Match(Contract):
    """Whether the index has the very thing that the query's photo shows, judged by the photo most similar to it.

    A query by `image_id` or `listing_id` is of its own listing, which is no match: it asks for the thing in others.
    """

    probability: float = Field(
        description="calibrated: how often the photo named here shows the same thing, where half of the queries are of "
        "a thing that is there"
    )
    certain: bool = Field(
        description="true: right in 95 % of such cases. With a probability of at least 0.5 the photo shows the same "
        "thing, with a lower one the thing is not there"
    )
    image_id: str = Field(description="the photo most similar to the query's, among those that the filters allow")
    listing_id: str


class FacetValue(Contract):
    """A value of an attribute, and how many listings have it."""

    value: str | bool
    count: int


class Facet(Contract):
    """How the values of one attribute are spread: the most frequent values, or for numbers their range."""

    type: AttributeType
    count: int = Field(description="listings that have a value")
    values: list[FacetValue] = Field([], description="the most frequent first")
    minimum: float | None = None
    maximum: float | None = None
    quantiles: list[float] = Field([], description="21 numbers from the lowest to the highest; times in seconds")


class Timing(Contract):
    """How long a job took, milliseconds."""

    queued: float  # ms from accepted to claimed
    compute: float  # ms in model and index
    total: float  # ms from accepted to finished


class SearchResult(Contract):
    """The result of a search job: the photo's category and its nearest neighbours."""

    category: CategoryAnswer
    neighbours: list[Neighbour]
    match: Match | None = Field(
        None,
        exclude_if=is_none,
        description="whether the same thing is there; left out of searches by words alone, and where the model has no "
        "calibration for it",
    )
    facets: dict[str, Facet] | None = Field(None, exclude_if=is_none, description="only with the option `facets`")
    index_version: str
    model_fingerprint: str
    reranker_version: str | None = Field(
        None, exclude_if=is_none, description="by which the neighbours are in their order; left out where by none"
    )
    timing_ms: Timing | None = None


class BoxProposal(Contract):
    """A part of the photo that may show a thing of its own."""

    box: tuple[float, float, float, float] = Field(
        description="x, y, w, h in fractions of the upright photo's width and height, as the option `box` has them"
    )
    score: float = Field(description="how much it differs from what is beside it, 0..1; the highest comes first")


class EmbedResult(Contract):
    """The result of an embed job: the photo's embedding, L2-normalised, and its category scores."""

    category: CategoryAnswer
    scores: list[float]  # the classifier's outputs before softmax, one per category in the model's order
    embedding: list[float] | str
    dimension: int
    boxes: list[BoxProposal] | None = Field(
        None, exclude_if=is_none, description="parts of the photo that may each show a thing; with `propose_boxes`"
    )
    model_fingerprint: str
    timing_ms: Timing | None = None
