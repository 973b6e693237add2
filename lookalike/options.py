"""The options of jobs and searches, as keyword arguments of the client's calls."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class JobOptions(TypedDict, total=False):
    """Options of every job.

    priority: queue of the job: `interactive` (default) is served before `bulk` (default of a batch).
    deadline_s: seconds after which an unfinished job expires.
    webhook_url: URL that the service calls when the job has ended.
    idempotency_key: the same key and request give the same job, however often they are sent. By default the client
        makes a key for each call, so that a request that it repeats after a broken connection makes one job.
    """

    priority: Literal["interactive", "bulk"]
    deadline_s: float
    webhook_url: str
    idempotency_key: str


class PhotoOptions(JobOptions, total=False):
    """Options of an embedding or a search, besides those of every job.

    box: only this part of the photo: left edge, upper edge, width and height in fractions of the upright photo's width
        and height, such as `(0.5, 0, 0.5, 1)` for its right half. Several photos, photos of the index and a batch take
        none.
    text: words about the thing, such as a listing's title, or title and description. With a photo both count; without
        photo, image_id and listing_id, the words alone are the query.
    """

    box: Sequence[float] | str
    text: str


class EmbedOptions(PhotoOptions, total=False):
    """Options of an embedding alone.

    propose_boxes: propose parts of the photo that may each show a thing, for `box`; of one photo, taken whole.
    """

    propose_boxes: bool


class SearchOptions(PhotoOptions, total=False):
    """Options of a search alone.

    k: number of neighbours, 1 to 100; default 4.
    category: only neighbours of this root category.
    distinct: `listing` returns only the most similar photo of each listing; default `none`.
    exclude_listing: leave out photos of this listing id.
    min_score: only neighbours with at least this cosine similarity, -1 to 1.
    filter: only neighbours whose attributes meet these conditions, such as
        `{"must": [{"key": "price", "range": {"lte": 50}}]}`; docs/api.md has the form.
    include: attributes that each neighbour carries, as a list of names or `"title,price"`; `"*"` for all.
    facets: count the listings by the values of these attributes, or of `category`; names as of `include`.
    facet_scope: `hits` counts only the listings of the neighbours; default `matches`: all that meet the filters.
    listing_score: with `distinct="listing"`: rank listings by their most similar photo (`best`) or by the mean over all
        their photos (`mean`), and tell how many photos each has.
    text_weight: with `text`: how much the words count beside a photo: 0 not at all, 1 alone; default: as was best on
        the service's catalogue. Without `text` it is refused.
    prefer: `same_thing` finds other photos of the very thing first, `same_kind` things of its category; default: a
        balance of both.
    """

    k: int
    category: str
    distinct: Literal["none", "listing"]
    exclude_listing: str
    min_score: float
    filter: Mapping[str, Any]
    include: str | Sequence[str]
    facets: str | Sequence[str]
    facet_scope: Literal["matches", "hits"]
    listing_score: Literal["best", "mean"]
    text_weight: float
    prefer: Literal["same_thing", "same_kind"]
