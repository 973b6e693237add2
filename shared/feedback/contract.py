"""The contract of feedback: what clients send, and what is stored of it as JSON.

What a search showed is stored with its first event, so that nothing needs the job any more, which is soon gone.
"""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import ImageNotFound, InvalidRequest, JobNotFound
from shared.jobs.answers_contract import CategoryScore, SearchResult
from shared.jobs.contract import Category, Job, JobStatus, SearchRequest

_ID_CHARS = 200


class FeedbackEvent(StrEnum):
    """What somebody did with a result."""

    CLICK = "click"  # looked at it
    RIGHT = "right"  # said that it is the one that was looked for
    PURCHASE = "purchase"  # bought it
    CATEGORY = "category"  # said which category the query's thing really is of


class FeedbackRequest(BaseModel):
    """An event: what was done with a result of a search, or the category that the search should have answered."""

    job_id: str = Field(min_length=1, max_length=_ID_CHARS, description="of a search that has succeeded")
    event: FeedbackEvent
    image_id: str | None = Field(
        None, min_length=1, max_length=_ID_CHARS, description="the result; with every event but `category`"
    )
    category: Category | None = Field(None, description="the right one; with the event `category`")

    def require_subject(self) -> None:
        """Check that it says what it is about: the result, or with `category` the category.

        Raises:
            InvalidRequest: it does not, or names the other.
        """
        wanted, other = ("category", "image_id") if self.event is FeedbackEvent.CATEGORY else ("image_id", "category")
        if getattr(self, wanted) is None:
            raise InvalidRequest(f"{wanted}: it is needed with the event {self.event}")
        if getattr(self, other) is not None:
            raise InvalidRequest(f"{other}: it does not belong to the event {self.event}")


class _Stored(BaseModel):
    """As in `shared.jobs.contract`: fields of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ShownResult(_Stored):
    """A result of a search, as it was shown."""

    image_id: str
    listing_id: str
    category: str
    score: float


class Impression(_Stored):
    """What a search was asked for and what it showed.

    Attributes:
        owner: id of the API key that searched; empty without keys.
        searched_at: when the search ended, seconds since the epoch.
        index_version, model_fingerprint, reranker_version: what answered.
        image_id, listing_id, text: of the query, as far as it had them.
        categories: the most probable ones of the answer, the best first.
        shown: the results, the first at position 1.
    """

    job_id: str
    owner: str = ""
    searched_at: float
    index_version: str
    model_fingerprint: str
    reranker_version: str | None = None
    image_id: str | None = None
    listing_id: str | None = None
    text: str | None = None
    categories: tuple[CategoryScore, ...] = ()
    shown: tuple[ShownResult, ...] = ()


class StoredEvent(_Stored):
    """An event; there is one of each kind for each result of a search, and one corrected category.

    Attributes:
        event: a FeedbackEvent, or one of a newer version, which is kept and not used.
        at: when it came first, a corrected category last; seconds since the epoch.
    """

    event: str
    image_id: str | None = None
    category: str | None = None
    at: float


class JobFeedback(_Stored):
    """Everything that is known of one search."""

    impression: Impression
    events: tuple[StoredEvent, ...]

    def of(self, event: FeedbackEvent) -> Mapping[str, float]:
        """When an event came, by the id of the result's photo."""
        return {one.image_id: one.at for one in self.events if one.event == event and one.image_id is not None}

    @property
    def category(self) -> str | None:
        """The corrected category; None: nobody has corrected it."""
        return next((one.category for one in self.events if one.event == FeedbackEvent.CATEGORY), None)

    def joined(self, other: "JobFeedback") -> "JobFeedback":
        """Both together; of an event that both have the first counts, of a corrected category the last."""
        events: dict[tuple[str, str | None], StoredEvent] = {}
        for one in sorted((*self.events, *other.events), key=lambda event: event.at):
            if one.event == FeedbackEvent.CATEGORY or (one.event, one.image_id) not in events:
                events[one.event, one.image_id] = one
        return JobFeedback(impression=self.impression, events=tuple(events.values()))


def impression_of(job: Job, request: FeedbackRequest) -> tuple[Impression, int | None]:
    """Take from a job what its search showed.

    Args:
        job: that the request names.
        request: its result must be among those of the search.

    Returns:
        the impression, and the position of the result that the event is about, from 1; None: it is about none.

    Raises:
        JobNotFound: the job is no search, or has shown nothing.
        ImageNotFound: its results have no such photo.
        InvalidRequest: as of `require_subject`.
    """
    found = job.result
    if not isinstance(job.request, SearchRequest):
        raise JobNotFound(f"the job is no search but {job.kind}; feedback is about what a search found")
    if job.status is not JobStatus.SUCCEEDED or not isinstance(found, SearchResult) or job.finished_at is None:
        raise JobNotFound(f"the search has shown nothing: it is {job.status}")
    request.require_subject()
    position = next((one.rank for one in found.neighbours if one.image_id == request.image_id), None)
    if request.image_id is not None and position is None:
        raise ImageNotFound(f"{request.image_id!r} is not among the {len(found.neighbours)} results of the search")
    impression = Impression(
        job_id=job.id,
        owner=job.owner,
        searched_at=job.finished_at,
        index_version=found.index_version,
        model_fingerprint=found.model_fingerprint,
        reranker_version=found.reranker_version,
        image_id=job.request.image_id,
        listing_id=job.request.listing_id,
        text=job.request.text,
        categories=tuple(found.category.top),
        shown=tuple(
            ShownResult(image_id=one.image_id, listing_id=one.listing_id, category=one.category, score=one.score)
            for one in found.neighbours
        ),
    )
    return impression, position
