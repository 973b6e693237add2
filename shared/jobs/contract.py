"""The job contract: kinds, states, requests and results of jobs, as models that are stored and sent as JSON.

Docstrings of these models are the descriptions of the API's OpenAPI document.
"""

from enum import StrEnum
from functools import cached_property
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from shared.attributes.json_options import AttributeValues, FacetNames, FilterJson, IncludeNames
from shared.errors import RecordUnreadable
from shared.jobs.answers_contract import Contract, EmbedResult, SearchResult, Timing, is_empty, is_false, is_none
from shared.jobs.duplicates_contract import DuplicateOf, DuplicatesRequest, DuplicatesResult
from shared.jobs.reindex_contract import Progress, ReindexRequest, ReindexResult, ShardRequest, ShardResult
from shared.photos.boxes import BOX_DESCRIPTION, BoxOption
from shared.photos.preprocessing import PreprocessSpec

_UPGRADED_WITHIN_S = 5
MAX_TEXT_CHARS = 10_000  # of a request's words
NO_WORDS = "text: the live model knows no words: its catalogue had none, or too few, when it was built"


class JobKind(StrEnum):
    """What a job does."""

    EMBED = "embed"  # photo -> embedding and category scores
    SEARCH = "search"  # photo -> category and the most similar catalogue photos
    PUT_IMAGE = "put_image"  # photo -> an image of the live index, new or instead of the one of that id
    DELETE_IMAGE = "delete_image"  # an image of the live index, gone from it
    REINDEX = "reindex"  # catalogue -> a new index snapshot
    DUPLICATES = "duplicates"  # live index -> groups of photos that are duplicates of one another
    SHARD = "shard"  # some photos of a reindex -> their embeddings; made by the reindex


class JobStatus(StrEnum):
    """State of a job. A terminal state never changes again."""

    QUEUED = "queued"  # accepted, no worker has it
    RUNNING = "running"  # a worker holds its lease
    CANCELING = "canceling"  # a worker holds its lease, and learns at its next extension that it was cancelled
    SUCCEEDED = "succeeded"  # result is set
    FAILED = "failed"  # error is set
    CANCELED = "canceled"  # a client asked for it
    EXPIRED = "expired"  # its deadline came first

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELING)


class Priority(StrEnum):
    """Which jobs go first."""

    INTERACTIVE = "interactive"  # a client waits for the result
    BULK = "bulk"  # claimed when nothing interactive waits, and by every eighth claim in any case


class Distinct(StrEnum):
    """What must differ between neighbours."""

    NONE = "none"  # nothing: every photo counts
    LISTING = "listing"  # the listing: only the best photo of each


class ListingScore(StrEnum):
    """How similar a listing is to the query."""

    BEST = "best"  # as its most similar photo
    MEAN = "mean"  # as all its photos are on average


class SearchPreference(StrEnum):
    """What a search for a photo should find first."""

    SAME_THING = "same_thing"  # other photos of the very thing
    SAME_KIND = "same_kind"  # things of the same category


class FacetScope(StrEnum):
    """Which listings facets count."""

    MATCHES = "matches"  # all in the index that meet the filters
    HITS = "hits"  # those of the neighbours in the answer


class Encoding(StrEnum):
    """How an embedding is written into JSON."""

    FLOAT = "float"  # list of numbers
    BASE64 = "base64"  # little-endian float32


class _PhotoRequest(Contract):
    """The photos come as pixels beside the request, or are those that the index already holds.

    Several photos are one query: the mean of their embeddings.
    """

    image_id: str | None = Field(None, min_length=1, max_length=200, description="a photo of the live index")
    listing_id: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        exclude_if=is_none,
        description="a listing of the live index: all its photos together are the query. A search leaves the listing "
        "itself out",
    )
    box: BoxOption | None = Field(None, exclude_if=is_none, description=BOX_DESCRIPTION)
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARS,
        exclude_if=is_none,
        description="words about the thing, such as a listing's title, or title and description; with a photo or alone",
    )
    # Set by the API where a request has words alone, so that a photo which has expired is not taken for none.
    without_photo: bool = Field(False, exclude_if=is_false, json_schema_extra={"x-internal": True})


class EmbedRequest(_PhotoRequest):
    """Options of an embed job."""

    encoding: Encoding = Encoding.FLOAT
    propose_boxes: bool = Field(
        False,
        exclude_if=is_false,
        description="propose parts of the photo that may each show a thing of its own, for the option `box`; of a "
        "single photo that is sent, taken whole",
    )
    # Set by the API where boxes are wanted: width and height of the upright photo, which its pixels do not tell.
    photo_size: tuple[int, int] | None = Field(None, exclude_if=is_none, json_schema_extra={"x-internal": True})


def _fits_a_path(name: str) -> str:
    if not name.isprintable() or name != name.strip() or "/" in name:
        raise ValueError("must be printable characters other than a slash, and neither begin nor end with a space")
    return name


# Which ones there are, the model that serves knows: the API checks it, and workers do.
Category = Annotated[str, Field(min_length=1, max_length=2000, json_schema_extra={"x-category": True})]


def _whole(number: object) -> object:
    """Accept 4.0 for 4: JSON does not distinguish them."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


class SearchRequest(_PhotoRequest):
    """Options of a search job: number of neighbours, and filters."""

    k: Annotated[int, BeforeValidator(_whole)] = Field(4, ge=1, le=100, description="neighbours wanted")
    category: Category | None = Field(None, description="only neighbours of this root category")
    distinct: Distinct = Distinct.NONE
    exclude_listing: str | None = Field(
        None, min_length=1, max_length=200, description="leave out this listing's photos"
    )
    min_score: float | None = Field(None, ge=-1, le=1, description="only neighbours at least this similar")
    # Options that requests did not have before are left out where they are not used: a request that is repeated after
    # an upgrade, under its idempotency key, is still the same request.
    filter: FilterJson | None = Field(
        None, exclude_if=is_none, description="only neighbours whose attributes meet these conditions"
    )
    include: IncludeNames = Field((), exclude_if=is_empty, description="attributes in the answer, by name; `*`: all")
    facets: FacetNames = Field(
        (), exclude_if=is_empty, description="count listings by these attributes, or by `category`"
    )
    facet_scope: FacetScope = Field(
        FacetScope.MATCHES,
        exclude_if=FacetScope.MATCHES.__eq__,
        description="count all listings that meet the filters, or those of the neighbours",
    )
    listing_score: ListingScore | None = Field(
        None,
        exclude_if=is_none,
        description="with `distinct=listing`: rank listings by their most similar photo, or by the mean over all their "
        "photos, and tell how many photos each has",
    )

    text_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        exclude_if=is_none,
        description="how much the words count beside the photo, with `text`: 0 not at all, 1 alone; by default as was "
        "best on this catalogue",
    )
    prefer: SearchPreference | None = Field(
        None,
        exclude_if=is_none,
        description="`same_thing`: other photos of the very thing first; `same_kind`: things of its category first; by "
        "default a balance of both",
    )

    @field_validator("listing_score")
    @classmethod
    def _ranks_listings(cls, score: ListingScore | None, others: ValidationInfo) -> ListingScore | None:
        if score is not None and others.data.get("distinct", Distinct.LISTING) is not Distinct.LISTING:
            raise ValueError("it ranks listings: send distinct=listing with it")
        return score

    @property
    def excluded_listings(self) -> set[str]:
        """Listings whose photos are no neighbours: the one named, and the one that is the query itself."""
        return {listing for listing in (self.exclude_listing, self.listing_id) if listing is not None}


class ImageOptions(Contract):
    """Options of a photo that is put into the live index."""

    listing_id: str = Field(min_length=1, max_length=200, description="the listing the photo belongs to")
    category: Category = Field(description="root category of the listing")
    attributes: AttributeValues | None = Field(
        None, exclude_if=is_none, description="value by name; without them those of its listing"
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARS,
        exclude_if=is_none,
        description="the listing's words: its title in the first line, its description below; the same as sending them "
        "as attributes",
    )


class _ImageChange(Contract):
    image_id: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_fits_a_path)]
    sequence: int = 0  # given at acceptance; of the changes of one image, the highest wins, in whatever order they run


class PutImageRequest(_ImageChange, ImageOptions):
    """Options of a put_image job; the photo comes as pixels beside the request, or stays the one of that id."""

    # Set by the API where no photo was sent: what is said of the photo changes, and the photo stays.
    without_photo: bool = Field(False, exclude_if=is_false)


class DeleteImageRequest(_ImageChange):
    """Options of a delete_image job."""


class Submission(Contract):
    """Options of any job, whatever its kind."""

    priority: Priority = Priority.INTERACTIVE
    deadline_s: float | None = Field(None, gt=0, description="seconds after which an unfinished job expires")
    webhook_url: str | None = Field(None, min_length=1, max_length=2000, description="told when the job has ended")


class ImageChangeResult(Contract):
    """The result of a put_image or delete_image job."""

    image_id: str
    change_id: str | None  # its entry in the change log; None: a change accepted later was applied first, and wins
    duplicates: list[DuplicateOf] | None = Field(
        None,
        exclude_if=is_none,
        description="of a put photo: those of other listings that it duplicates, the surest first",
    )
    timing_ms: Timing | None = None


class JobError(Contract):
    """Why a job failed; `code` is one of the error codes of the API."""

    code: str
    detail: str
    retryable: bool


PhotoRequest = EmbedRequest | SearchRequest
PhotoResult = EmbedResult | SearchResult
ImageChangeRequest = PutImageRequest | DeleteImageRequest
JobRequest = PhotoRequest | ImageChangeRequest | ReindexRequest | ShardRequest | DuplicatesRequest
JobResult = PhotoResult | ImageChangeResult | ReindexResult | ShardResult | DuplicatesResult

OF_THE_INDEX = ("image_id", "listing_id")  # options that name photos of the index, instead of some that are sent
OF_WHAT_IS_SENT = ("box", "propose_boxes")  # options of a single photo that is sent
# Requests that clients send together with a photo.
PHOTO_REQUESTS: dict[JobKind, type[PhotoRequest]] = {JobKind.EMBED: EmbedRequest, JobKind.SEARCH: SearchRequest}
_REQUESTS: dict[JobKind, type[JobRequest]] = {
    **PHOTO_REQUESTS,
    JobKind.PUT_IMAGE: PutImageRequest,
    JobKind.DELETE_IMAGE: DeleteImageRequest,
    JobKind.REINDEX: ReindexRequest,
    JobKind.SHARD: ShardRequest,
    JobKind.DUPLICATES: DuplicatesRequest,
}
_RESULTS: dict[JobKind, type[JobResult]] = {
    JobKind.EMBED: EmbedResult,
    JobKind.SEARCH: SearchResult,
    JobKind.PUT_IMAGE: ImageChangeResult,
    JobKind.DELETE_IMAGE: ImageChangeResult,
    JobKind.REINDEX: ReindexResult,
    JobKind.SHARD: ShardResult,
    JobKind.DUPLICATES: DuplicatesResult,
}


class Job(Contract):
    """One job, as read from its record in Redis. Times are seconds since the epoch."""

    id: str
    kind: JobKind
    status: JobStatus
    request: JobRequest
    request_id: str = ""  # the HTTP request that created it, for the logs
    owner: str = ""  # id of the API key that submitted it; empty without keys
    submission: Submission = Submission()
    created_at: float
    deadline_at: float
    started_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    attempt: int = 0
    spec: PreprocessSpec = PreprocessSpec()  # by which its pixels were made
    progress: Progress | None = None
    result_json: str | None = None  # as its worker wrote it; answers pass it on as it is
    error: JobError | None = None
    confirmed: bool = False  # known: as many replicas of Redis have its end as were demanded
    trace: dict[str, str] = Field({})  # trace context of the request that created it (W3C `traceparent`), if any

    @cached_property
    def result(self) -> JobResult | None:
        """The result, parsed; None: there is none.

        Raises:
            RecordUnreadable: it is of a newer version.
        """
        if self.result_json is None:
            return None
        try:
            return _RESULTS[self.kind].model_validate_json(self.result_json)
        except ValueError as exc:
            raise unreadable(f"the result of job {self.id}") from exc


def unreadable(what: str) -> RecordUnreadable:
    """The error of whoever reads a record that this version of the service cannot."""
    return RecordUnreadable(
        f"{what} was written by a newer version of the service than this process; ask again",
        retry_after_s=_UPGRADED_WITHIN_S,
    )


def brings_photo(request: JobRequest) -> bool:
    """Tell whether the pixels of photos come beside the request."""
    if isinstance(request, PhotoRequest):
        return not request.without_photo and all(getattr(request, name) is None for name in OF_THE_INDEX)
    return isinstance(request, PutImageRequest) and not request.without_photo


def parse_request(kind: JobKind, payload: str) -> JobRequest:
    """Parse the request of a job from JSON text.

    Raises:
        ValidationError: it is not a request of that kind.
    """
    return _REQUESTS[kind].model_validate_json(payload)
