"""The reindex contract: requests, results and quality reports of reindexes, as models that are stored as JSON."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class ReindexMode(StrEnum):
    """Which photos are embedded."""

    CHANGED = "changed"  # those whose embedding is not known yet: new, changed, or of another model
    ALL = "all"  # every one


class Promotion(StrEnum):
    """When the new snapshot goes live."""

    IF_BETTER = "if_better"  # it is valid, and no worse than the live one by more than the margins
    IF_VALID = "if_valid"  # it is valid, however it compares
    NEVER = "never"  # it is kept, to be inspected or promoted by hand


class _Contract(BaseModel):
    """As in `shared.jobs.contract`: fields of a newer version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReindexRequest(_Contract):
    """Options of a reindex job; the catalogue is the one the service was started with."""

    mode: ReindexMode = Field(ReindexMode.CHANGED, description="changed: embed what is not known yet; all: everything")
    dry_run: bool = Field(False, description="only say what would be done")
    promote: Promotion = Field(Promotion.IF_BETTER, description="when the new snapshot goes live")
    force: bool = Field(False, description="promote even when far fewer photos are left than are live")


class ShardPhoto(_Contract):
    """One photo to embed."""

    path: str
    sha256: str  # of the file's bytes, as they were when the reindex was planned


class ShardRequest(_Contract):
    """The photos of a shard job, which one worker embeds; submitted by the reindex, never by a client."""

    bundle_version: str
    scope: str  # of the embedding cache
    photos: tuple[ShardPhoto, ...]


class ShardResult(_Contract):
    """The result of a shard job."""

    name: str  # of the file in the embedding cache


class ReindexCounts(_Contract):
    """Numbers of photos in a reindex."""

    seen: int = 0  # in the catalogue and the live changes
    unchanged: int = 0  # as they are in the live snapshot
    new: int = 0
    changed: int = 0  # other pixels
    relabelled: int = 0  # same photo, another listing or category
    removed: int = 0  # in the live snapshot and no longer wanted
    embedded: int = 0  # by the model, in this reindex
    failed: int = 0  # left out of the snapshot


class QualityGate(_Contract):
    """One condition of promotion."""

    name: str
    passed: bool
    detail: str  # the figures, for people


class SnapshotQuality(_Contract):
    """Search quality of a snapshot, measured on a sample of its own photos. Shares are 0..1.

    Attributes:
        count: photos in the snapshot.
        sampled: photos in the sample.
        precision_at_4: share of the four nearest photos of other listings that have the query's category.
        sibling_recall_at_4: share of queries, of listings with several photos, that find another one among four.
        recall_at_10: share of the true ten nearest that a search finds.
        self_retrieval: share of queries that find themselves first.
    """

    count: int
    sampled: int
    precision_at_4: float | None = None
    sibling_recall_at_4: float | None = None
    recall_at_10: float | None = None
    self_retrieval: float | None = None


class ReindexReport(_Contract):
    """A new snapshot compared with the live one; stored in its manifest."""

    mode: ReindexMode
    counts: ReindexCounts
    reasons: dict[str, int] = {}  # rows and photos left out, by reason
    new: SnapshotQuality
    live: SnapshotQuality | None = None
    live_version: str | None = None
    gates: tuple[QualityGate, ...] = ()
    timings_s: dict[str, float] = {}  # by stage


class ReindexResult(_Contract):
    """The result of a reindex job.

    Attributes:
        index_version: the snapshot it wrote; None if nothing had changed, or in a dry run.
        decision: why it was promoted or not, for people.
    """

    mode: ReindexMode
    dry_run: bool = False
    counts: ReindexCounts
    reasons: dict[str, int] = {}
    index_version: str | None = None
    live_version: str | None = None
    promoted: bool = False
    decision: str = ""
    report: ReindexReport | None = None
    timings_s: dict[str, float] = {}


class Progress(_Contract):
    """Progress of a running job."""

    stage: str
    done: int
    total: int
    eta_s: float | None = None  # seconds until the stage is done, at its pace so far
