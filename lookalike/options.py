"""The options of jobs and searches, as keyword arguments of the client's calls."""

from typing import Literal, TypedDict


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


class SearchOptions(JobOptions, total=False):
    """Options of a search, besides those of every job.

    k: number of neighbours, 1 to 100; default 4.
    category: only neighbours of this root category.
    distinct: `listing` returns only the most similar photo of each listing; default `none`.
    exclude_listing: leave out photos of this listing id.
    min_score: only neighbours with at least this cosine similarity, -1 to 1.
    """

    k: int
    category: str
    distinct: Literal["none", "listing"]
    exclude_listing: str
    min_score: float
