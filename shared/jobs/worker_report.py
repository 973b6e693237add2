"""What a worker reports of itself every two seconds: its state, the index it serves, and what it did."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from shared.attributes.schema import Attribute
from shared.photos.preprocessing import PreprocessSpec


class _Report(BaseModel):
    """Unknown fields are ignored: a worker of a newer version may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class IndexInfo(_Report):
    """The index and model that a worker serves; the body of `GET /v1/index`."""

    version: str
    count: int
    changed: int = 0  # images put or deleted since it was built, which searches see
    dimension: int
    built_at: str
    catalogue: str
    backbone: str
    weights: str
    model_fingerprint: str
    model_version: str
    metrics: dict[str, float | int]
    metrics_catalogue: str = ""  # what `metrics` were measured on, when the bundle was built
    recipe: str = ""  # how the model was trained
    runtime: str = ""
    precision: str = ""
    preprocess: PreprocessSpec = PreprocessSpec()  # how photos are made square for it
    temperature: float = 1.0  # softmax(scores / temperature) is calibrated
    abstain_below: float = 0.0  # a category of lower probability is not `certain`
    words: tuple[str, ...] = ()  # attributes that are a listing's words; none: searches take no `text`
    text_weight: float | None = None  # of the words beside a photo, by default; None: searches take no `text`
    # In the order of the scores; filled by the API: in what workers report every two seconds 2,000 would have no place.
    categories: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()  # of the listings; filled by the API likewise
    notice: str | None = None


STAGE_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class StageTimes(_Report):
    """A histogram of how long one stage of the jobs took.

    Attributes:
        counts: jobs by bucket: the first of STAGE_BOUNDS_S that they did not exceed, and one more for those above all.
        sum_s: seconds in total.
    """

    counts: list[int] = [0] * (len(STAGE_BOUNDS_S) + 1)
    sum_s: float = 0.0


class KindStats(_Report):
    """What became of the jobs of one kind, and how long they took."""

    outcomes: dict[str, int] = {}  # attempts by outcome: a status, an error's code, or `late`
    stages: dict[str, StageTimes] = {}  # queued, compute, total


class WorkerStats(_Report):
    """What a worker did since it began.

    Attributes:
        by_kind: by kind of job, a text: another version may know more kinds. Earlier versions report none.
        outcomes: of all kinds together.
        stages: likewise, but for reindexes and their shards.
    """

    by_kind: dict[str, KindStats] = {}
    outcomes: dict[str, int] = {}
    stages: dict[str, StageTimes] = {}

    batch_sizes: dict[int, int] = {}  # forward passes by number of photos
    cache_hits: int = 0
    cache_shared: int = 0
    cache_misses: int = 0


class WorkerReport(_Report):
    """A worker's heartbeat. While the worker cannot serve, `index` is None and `problem` is the reason."""

    name: str
    pid: int
    reported_at: float
    state: Literal["ready", "unready"]
    held: int = 0  # jobs whose leases it holds
    device: str = ""  # that the model runs on, for people
    photos_per_s: float | None = None  # highest throughput of the model there, measured when it was first loaded
    index: IndexInfo | None = None
    problem: str | None = None
    problem_code: str | None = None  # of the error behind `problem`, if it is one
    installation: str = ""  # whose artifacts it serves, see `shared.artifacts.installation`; empty: not known
    stats: WorkerStats = WorkerStats()
