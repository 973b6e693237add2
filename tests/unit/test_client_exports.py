"""The public names of the client: programs import them, so none may change by accident."""

import ast
import inspect
from collections.abc import Iterator

import pytest

import lookalike
from lookalike import errors, models
from tests import ROOT

EXPORTS = {
    "AsyncClient", "AsyncJob", "BatchItem", "Client", "EmbedResult", "Job", "LookalikeError", "Neighbour", "Progress",
    "ReindexResult", "SearchResult",
}  # fmt: skip
ERRORS = {
    "AcceptanceUnknown", "AccessDenied", "ApiKeyInvalid", "ApiKeyRequired", "ArtifactUnwritable", "BatchNotFound",
    "BundleDamaged", "BundleMissing", "ChangesFull", "Conflict", "DeadlineExceeded", "EmbeddingsDiffer",
    "FeedbackFull", "FingerprintMismatch", "IdempotencyConflict",
    "IdempotencyPending", "ImageMissing", "ImageNotFound", "IndexDamaged", "IndexMissing", "IndexUnavailable",
    "InputError", "JobCanceled", "JobFinished", "JobGone", "JobNotFound", "JobNotRetryable", "LookalikeError",
    "NoAnswer", "NotFound", "NotServing", "Overload", "PhotoExpired", "PhotoTooLarge", "PhotoUndecodable",
    "PhotoUnreadable", "PromotionRefused", "QueueFull", "QueueShareFull", "QueueUnavailable", "RateLimited",
    "ReindexRunning", "ResourcesExhausted", "ScopeMissing", "ServiceError", "ShardFailed", "StoreUnavailable",
    "TimedOut", "TorchMissing", "UnexpectedAnswer", "UnsupportedFormat", "UploadTooLarge", "VersionNotFound",
    "WebhookRefused", "WorkerLost",
}  # fmt: skip
MODELS = {
    "RESULTS", "Answer", "Attribute", "BatchItemState", "BatchState", "BoxProposal", "CategoryAnswer", "CategoryScore",
    "CertainPath", "DayQuality", "DuplicateGroup", "DuplicateImage", "DuplicateOf", "DuplicatePair", "DuplicatesPage",
    "DuplicatesResult", "EmbedResult", "Facet", "FacetValue", "Failure", "FeedbackGiven", "Gate", "ImageChange",
    "IndexInfo", "JobPage", "JobState", "Match", "Neighbour", "Origin", "Progress", "QualityCheck", "QualityFigures",
    "QualityReport", "QueuePlace", "QueueState", "Readiness", "ReindexCounts", "ReindexReport", "ReindexResult",
    "ReportSummary", "SearchResult", "SnapshotQuality", "StageFigures", "Timing", "VerdictGiven", "Version",
    "VersionList", "VersionQuality", "VersionReport", "Worker", "WorkerList",
}  # fmt: skip
CLIENT = {
    "batch", "batch_embed", "close", "delete_image", "duplicate_groups", "duplicates", "embed", "give_feedback",
    "give_verdict", "index", "job", "jobs", "plot", "promote", "put_image", "quality", "ready", "reindex", "report",
    "rollback", "run", "search", "submit", "submit_duplicates", "submit_embed", "submit_reindex", "thumbnail", "url",
    "versions", "workers",
}  # fmt: skip
JOB = {"cancel", "done", "error", "id", "progress", "refresh", "retry", "state", "status", "wait"}


def public_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_package_exports_the_names_that_it_has_always_had() -> None:
    assert set(lookalike.__all__) == EXPORTS
    assert all(hasattr(lookalike, name) for name in EXPORTS)


def test_no_error_and_no_model_changes_its_name() -> None:
    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert classes == ERRORS
    assert set(models.__all__) == MODELS


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (lookalike.Client, CLIENT), (lookalike.AsyncClient, CLIENT), (lookalike.Job, JOB), (lookalike.AsyncJob, JOB),
        (lookalike.BatchItem, {"error", "job_id", "ok", "result"}),
    ],
)  # fmt: skip
def test_clients_and_jobs_keep_their_methods(cls: type, names: set[str]) -> None:
    assert public_names(cls) == names


def undocumented(folder: str) -> Iterator[str]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            yield name
        for owner, node in [("", node) for node in tree.body] + [
            (f"{cls.name}.", node) for cls in tree.body if isinstance(cls, ast.ClassDef) for node in cls.body
        ]:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                is_public = not node.name.startswith("_") and not owner.startswith("_")
                if is_public and not ast.get_docstring(node):
                    yield f"{name}: {owner}{node.name}"


def test_every_public_name_of_the_client_has_a_docstring() -> None:
    assert list(undocumented("lookalike")) == []


@pytest.mark.parametrize("cls", [lookalike.Client, lookalike.AsyncClient, lookalike.Job, lookalike.BatchItem])
def test_the_classes_that_programs_begin_with_show_an_example(cls: type) -> None:
    assert ">>>" in (cls.__doc__ or "")
