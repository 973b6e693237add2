"""What the service answers, as frozen models. Fields that a newer service adds are ignored."""

from lookalike.models.answer import Answer
from lookalike.models.duplicates import (
    DuplicateGroup,
    DuplicateImage,
    DuplicateOf,
    DuplicatePair,
    DuplicatesPage,
    DuplicatesResult,
    VerdictGiven,
)
from lookalike.models.feedback import FeedbackGiven
from lookalike.models.index import (
    Attribute,
    Gate,
    IndexInfo,
    ReindexCounts,
    ReindexReport,
    ReindexResult,
    ReportSummary,
    SnapshotQuality,
    Version,
    VersionList,
    VersionReport,
)
from lookalike.models.jobs import BatchItemState, BatchState, Failure, JobPage, JobState, Progress, QueuePlace
from lookalike.models.results import (
    CategoryAnswer,
    CategoryScore,
    CertainPath,
    EmbedResult,
    Facet,
    FacetValue,
    ImageChange,
    Match,
    Neighbour,
    Origin,
    SearchResult,
    Timing,
)
from lookalike.models.workers import QueueState, Readiness, Worker, WorkerList

# The model of a finished job's result, by the job's kind.
RESULTS: dict[str, type[Answer]] = {
    "search": SearchResult,
    "embed": EmbedResult,
    "put_image": ImageChange,
    "delete_image": ImageChange,
    "reindex": ReindexResult,
    "duplicates": DuplicatesResult,
}

__all__ = [
    "RESULTS",
    "Answer",
    "Attribute",
    "BatchItemState",
    "BatchState",
    "CategoryAnswer",
    "CategoryScore",
    "CertainPath",
    "DuplicateGroup",
    "DuplicateImage",
    "DuplicateOf",
    "DuplicatePair",
    "DuplicatesPage",
    "DuplicatesResult",
    "EmbedResult",
    "Facet",
    "FacetValue",
    "Failure",
    "FeedbackGiven",
    "Gate",
    "ImageChange",
    "IndexInfo",
    "JobPage",
    "JobState",
    "Match",
    "Neighbour",
    "Origin",
    "Progress",
    "QueuePlace",
    "QueueState",
    "Readiness",
    "ReindexCounts",
    "ReindexReport",
    "ReindexResult",
    "ReportSummary",
    "SearchResult",
    "SnapshotQuality",
    "Timing",
    "VerdictGiven",
    "Version",
    "VersionList",
    "VersionReport",
    "Worker",
    "WorkerList",
]
