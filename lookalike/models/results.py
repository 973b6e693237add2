"""The results of searches, embeddings, and of photos put into the index or deleted from it."""

import sys
from array import array
from base64 import b64decode
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PrivateAttr

from lookalike.models.answer import Answer
from lookalike.models.duplicates import DuplicateOf

if TYPE_CHECKING:
    from lookalike.photos import Photo
    from lookalike.plot import Grid


class CategoryScore(Answer):
    """A category and its calibrated probability, 0 to 1."""

    name: str
    probability: float


class CertainPath(Answer):
    """As much of a category's path as is probable enough to rely on.

    Attributes:
        name: the levels joined by " / ".
        path: the levels, the root's name first.
        probability: calibrated, 0 to 1: how often the photo's category is this or one below it.
    """

    name: str
    path: list[str]
    probability: float


class CategoryPart(Answer):
    """What one part of a query says of the category.

    Attributes:
        part: `photo` or `words`.
        name: its most probable category.
        probability: of that category, by this part alone.
        share: of the answer that is owed to it, 0 to 1.
    """

    part: str
    name: str
    probability: float
    share: float


class CategoryAnswer(Answer):
    """The most probable category of a photo.

    Attributes:
        name: root category.
        index: position of the category in the classifier's output.
        probability: calibrated, 0 to 1: how often an answer with this probability is right.
        certain: false where the probability is too low to rely on, by the model's own threshold.
        top: the three most probable categories, most probable first.
        certain_path: where `certain` the category itself, else the deepest level above it that can be relied on;
            None: there is none, or the service's categories have one level only.
        parts: of a query with `text` beside a photo: what each of them says for itself.
    """

    name: str
    index: int
    probability: float
    certain: bool = True
    top: list[CategoryScore] = Field(default_factory=list)
    certain_path: CertainPath | None = None
    parts: list[CategoryPart] = Field(default_factory=list)


class Neighbour(Answer):
    """A photo of the index that is similar to the query.

    Attributes:
        rank: 1 is the most similar.
        image_id: the photo's id; `client.thumbnail(image_id)` returns its picture.
        listing_id: the listing that the photo belongs to.
        category: root category of that listing.
        score: cosine similarity to the query, -1 to 1; with `listing_score="mean"` the mean of its listing's photos.
        row: position in the index snapshot.
        attributes: value by name, those of the option `include` that the listing has; None without that option. A
            price is `{"amount": 12.5, "currency": "EUR"}`, a time ISO 8601.
        listing_photos: photos that the index has of the listing; None without the option `listing_score`.
    """

    rank: int
    image_id: str
    listing_id: str
    category: str
    score: float
    row: int
    attributes: dict[str, Any] | None = None
    listing_photos: int | None = None


class Match(Answer):
    """Whether the index has the very thing that the query's photo shows.

    Attributes:
        probability: calibrated, 0 to 1: how often the photo named here shows the same thing, where half of the queries
            are of a thing that is there.
        certain: whether that can be relied on; see `found`.
        image_id: the photo most similar to the query's, among those that the filters allow.
        listing_id: its listing.
    """

    probability: float
    certain: bool
    image_id: str
    listing_id: str

    @property
    def found(self) -> bool | None:
        """True: the photo shows the same thing; False: the thing is not there; None: neither is certain."""
        return self.probability >= 0.5 if self.certain else None


class FacetValue(Answer):
    """A value of an attribute, and how many listings have it."""

    value: str | bool
    count: int


class Facet(Answer):
    """How the values of one attribute are spread over the listings.

    Attributes:
        type: keyword, place, boolean, number, price or time.
        count: listings that have a value.
        values: of keywords, places and booleans: the most frequent first.
        minimum, maximum: of numbers, prices (their amounts) and times (seconds since the epoch).
        quantiles: of those: 21 numbers from the lowest to the highest.
    """

    type: str
    count: int
    values: list[FacetValue] = Field(default_factory=list)
    minimum: float | None = None
    maximum: float | None = None
    quantiles: list[float] = Field(default_factory=list)


class Timing(Answer):
    """How long a job took, in milliseconds.

    Attributes:
        queued: from accepted to claimed by a worker.
        compute: in model and index.
        total: from accepted to finished.
    """

    queued: float
    compute: float
    total: float


class Origin:
    """The query of a result and the function that draws the result.

    A result that a client returned has both; a copy made by pickle or `copy.deepcopy` has neither.

    Attributes:
        query: the photo and the `image_id` that were searched for; one of them is None.
        plot: draws the result.
        job_id: id of the job.
    """

    def __init__(
        self,
        query: "tuple[Photo | None, str | None]" = (None, None),
        plot: "Callable[[SearchResult], Grid] | None" = None,
        job_id: str = "",
    ) -> None:
        self.query = query
        self.plot = plot
        self.job_id = job_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)  # two results with the same fields are equal, whatever their queries were

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type["Origin"], tuple[()]]:
        return Origin, ()


class SearchResult(Answer):
    """The result of a search: the query's category, and the photos of the index most similar to it.

    Attributes:
        category: the query's most probable category.
        neighbours: similar photos, most similar first, or in the order of a re-ranker.
        match: whether the very same thing is there; None: the service's model cannot tell, or the query has no photo.
        facets: by name, those of the option `facets`; None without it.
        index_version: the version of the index that was searched.
        model_fingerprint: identifies weights, preprocessing and runtime of the model that was used.
        reranker_version: the re-ranker by which the neighbours are in their order; None: by none.
        timing_ms: how long the job took; None if the service did not measure it.
    """

    category: CategoryAnswer
    neighbours: list[Neighbour]
    match: Match | None = None
    facets: dict[str, Facet] | None = None
    index_version: str
    model_fingerprint: str
    reranker_version: str | None = None
    timing_ms: Timing | None = None

    _origin: Origin = PrivateAttr(default_factory=Origin)

    @property
    def job_id(self) -> str:
        """Id of the job that found it, for `Client.give_feedback`; empty for a copy."""
        return self._origin.job_id

    def plot(self, save: str | PathLike[str] | None = None) -> "Grid":
        """Draw the query beside its neighbours; needs matplotlib: pip install 'lookalike[plot]'.

        For a result of an `AsyncClient` use `await client.plot(result)` instead.

        Args:
            save: a file to write the figure to as well: .png, .pdf or .svg.

        Returns:
            A matplotlib figure. A notebook shows it; elsewhere call its `show()` or `savefig()`.

        Raises:
            ValueError: the result is a copy or was returned by an AsyncClient.
            ImportError: matplotlib is not installed.
            LookalikeError: a thumbnail could not be fetched.
        """
        if self._origin.plot is None:
            raise ValueError("this result was not returned by a Client: draw it with client.plot(result, photo)")
        grid = self._origin.plot(self)
        if save is not None:
            grid.savefig(save)
        return grid


def _decoded_embedding(encoded: object) -> object:
    """Decode base64 of little-endian float32, the encoding that this client asks for."""
    if not isinstance(encoded, str):
        return encoded
    numbers = array("f", b64decode(encoded))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


class BoxProposal(Answer):
    """A part of a photo that may show a thing of its own.

    Attributes:
        box: x, y, w, h in fractions of the upright photo, as the option `box` takes them.
        score: how much the part differs from what is beside it, 0..1.
    """

    box: tuple[float, float, float, float]
    score: float


class EmbedResult(Answer):
    """The embedding of a photo.

    Attributes:
        category: the photo's most probable category.
        scores: (n_categories,) outputs of the classifier before softmax, in the order of its categories.
        embedding: (dimension,) vector of length 1; the dot product of two is their cosine similarity.
        dimension: length of `embedding`.
        boxes: parts of the photo that may each show a thing, the surest first; None without `propose_boxes`.
        model_fingerprint: identifies the model; embeddings of different models cannot be compared.
        timing_ms: how long the job took; None if the service did not measure it.
    """

    category: CategoryAnswer
    scores: list[float]
    embedding: Annotated[list[float], BeforeValidator(_decoded_embedding)]
    dimension: int
    boxes: list[BoxProposal] | None = None
    model_fingerprint: str
    timing_ms: Timing | None = None


class ImageChange(Answer):
    """A photo was put into the live index or deleted from it.

    Attributes:
        image_id: the photo.
        change_id: entry in the change log; None if a later change of the same photo was already done and stands.
        duplicates: photos of other listings that a put photo duplicates, the surest first; None of a deletion, or if
            the service did not look.
        timing_ms: how long the job took; None if the service did not measure it.
    """

    image_id: str
    change_id: str | None
    duplicates: list[DuplicateOf] | None = None
    timing_ms: Timing | None = None
