"""What the service answers, as frozen models. Fields that a newer service adds are passed over."""

import sys
from array import array
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr

if TYPE_CHECKING:
    from lookalike.photos import Photo
    from lookalike.plot import Grid


class Answer(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class CategoryScore(Answer):
    name: str
    probability: float


class CategoryAnswer(Answer):
    """The most probable category; `certain` is false where it is too improbable to rely on. `top`: the best three."""

    name: str
    index: int
    probability: float
    certain: bool = True
    top: list[CategoryScore] = []


class Neighbour(Answer):
    rank: int  # 1 is the most similar
    image_id: str
    listing_id: str
    category: str
    score: float  # cosine similarity, -1..1
    row: int


class Timing(Answer):
    """Milliseconds."""

    queued: float
    compute: float
    total: float


class Origin:
    """What a result answers, and how to draw it: known to the one a client returned, not to a pickled copy.

    Attributes:
        query: the photo, or its id in the index.
    """

    def __init__(
        self,
        query: "tuple[Photo | None, str | None]" = (None, None),
        plot: "Callable[[SearchResult], Grid] | None" = None,
    ) -> None:
        self.query = query
        self.plot = plot

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)  # results are equal that say the same

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type["Origin"], tuple[()]]:
        return Origin, ()


class SearchResult(Answer):
    category: CategoryAnswer
    neighbours: list[Neighbour]
    index_version: str
    model_fingerprint: str
    timing_ms: Timing | None = None

    _origin: Origin = PrivateAttr(default_factory=Origin)

    def plot(self, save: str | PathLike[str] | None = None) -> "Grid":
        """Draw the query beside its neighbours; needs matplotlib: pip install 'lookalike[plot]'.

        A notebook shows what is returned, elsewhere `.show()` does. Of an AsyncClient's result:
        `await client.plot(result)`.

        Args:
            save: a file to write as well, .png, .pdf, .svg.
        """
        if self._origin.plot is None:
            raise ValueError("this result was not returned by a Client: draw it with client.plot(result, photo)")
        grid = self._origin.plot(self)
        if save is not None:
            grid.savefig(save)
        return grid


def _numbers(encoded: object) -> object:
    """Little-endian float32 in base64, as the client asks for them."""
    if not isinstance(encoded, str):
        return encoded
    numbers = array("f", b64decode(encoded))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


class EmbedResult(Answer):
    """`embedding` has length 1; `scores` are the 13 outputs of the classifier before softmax, in encoder order."""

    category: CategoryAnswer
    scores: list[float]
    embedding: Annotated[list[float], BeforeValidator(_numbers)]
    dimension: int
    model_fingerprint: str
    timing_ms: Timing | None = None


class ImageChange(Answer):
    """What became of a photo put or deleted; `change_id` is None when a later change of it was there first."""

    image_id: str
    change_id: str | None
    timing_ms: Timing | None = None


class ReindexCounts(Answer):
    seen: int = 0
    unchanged: int = 0
    new: int = 0
    changed: int = 0
    relabelled: int = 0
    removed: int = 0
    embedded: int = 0
    failed: int = 0


class Gate(Answer):
    """One condition of promotion."""

    name: str
    passed: bool
    detail: str


class SnapshotQuality(Answer):
    count: int
    sampled: int
    precision_at_4: float | None = None
    sibling_recall_at_4: float | None = None
    recall_at_10: float | None = None
    self_retrieval: float | None = None


class ReindexReport(Answer):
    """A new version of the index beside the one that was live."""

    mode: str
    counts: ReindexCounts
    reasons: dict[str, int] = {}
    new: SnapshotQuality
    live: SnapshotQuality | None = None
    live_version: str | None = None
    gates: list[Gate] = []
    timings_s: dict[str, float] = {}


class ReindexResult(Answer):
    """`decision` says why the new version was promoted or not."""

    mode: str
    dry_run: bool = False
    counts: ReindexCounts
    reasons: dict[str, int] = {}
    index_version: str | None = None
    live_version: str | None = None
    promoted: bool = False
    decision: str = ""
    report: ReindexReport | None = None
    timings_s: dict[str, float] = {}


class Progress(Answer):
    """How far something is; `total` is 0 while nobody knows."""

    stage: str
    done: int
    total: int
    eta_s: float | None = None


class Failure(Answer):
    """Why a job failed."""

    code: str
    detail: str
    retryable: bool = False


class QueuePlace(Answer):
    ahead: int
    eta_s: float | None = None


class JobState(Answer):
    """A job as it stood when it was asked for.

    Attributes:
        status: queued, running, canceling; or for good succeeded, failed, canceled, expired.
        result: as the service sent it; `Job.wait` returns it typed.
    """

    id: str
    kind: str
    status: str
    priority: str = "interactive"
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    expires_at: datetime | None = None
    attempt: int = 0
    progress: Progress | None = None
    error: Failure | None = None
    queue: QueuePlace | None = None
    result: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self.finished_at is not None


class JobPage(Answer):
    jobs: list[JobState]
    next_cursor: str | None = None


class BatchItemState(Answer):
    custom_id: str
    job_id: str | None = None
    status: str
    result: dict[str, Any] | None = None
    error: Failure | None = None


class BatchState(Answer):
    id: str
    kind: str
    status: str
    items: list[BatchItemState]


class IndexInfo(Answer):
    """What searches are run against, and by which model."""

    version: str
    count: int
    changed: int = 0
    dimension: int
    built_at: str
    catalogue: str
    backbone: str
    weights: str
    model_fingerprint: str
    model_version: str
    metrics: dict[str, float] = {}
    metrics_catalogue: str = ""
    recipe: str = ""
    runtime: str = ""
    precision: str = ""
    preprocess: dict[str, Any] = {}
    temperature: float = 1.0
    abstain_below: float = 0.0
    notice: str | None = None


class ReportSummary(Answer):
    mode: str
    counts: ReindexCounts
    quality: SnapshotQuality
    gates_failed: list[str] = []


class Version(Answer):
    """One version of the index; `problem` says why it cannot be used, if it cannot."""

    version: str
    live: bool
    promoted_at: datetime | None = None
    bytes: int = 0
    problem: str | None = None
    built_at: str | None = None
    count: int | None = None
    catalogue: str | None = None
    model_fingerprint: str | None = None
    report: ReportSummary | None = None


class VersionList(Answer):
    versions: list[Version]


class VersionReport(Answer):
    version: Version
    report: ReindexReport | None = None


class Worker(Answer):
    """A worker as it reported itself last.

    Attributes:
        device: what the model runs on.
        photos_per_s: what it does there at most, as the worker measured.
        problem: why it cannot serve, if it cannot.
    """

    name: str
    state: str
    pid: int = 0
    reported_at: datetime
    held: int = 0
    device: str = ""
    photos_per_s: float | None = None
    index: IndexInfo | None = None
    problem: str | None = None


class QueueState(Answer):
    """Jobs not yet claimed, by class; jobs in hand; age of the one that waits longest."""

    queued: dict[str, int]
    running: int
    oldest_wait_s: float


class WorkerList(Answer):
    workers: list[Worker]
    queue: QueueState


class Readiness(Answer):
    """Whether jobs are done, and what is missing if not."""

    status: str
    workers: int = 0
    problems: list[str] = []

    @property
    def ready(self) -> bool:
        return self.status == "ready"


RESULTS: dict[str, type[Answer]] = {
    "search": SearchResult,
    "embed": EmbedResult,
    "put_image": ImageChange,
    "delete_image": ImageChange,
    "reindex": ReindexResult,
}
