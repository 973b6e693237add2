"""/v1/index: the live index, its versions, promotion and rollback; and /v1/jobs/reindex."""

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from flask import Blueprint, Response, render_template, request
from pydantic import BaseModel, ConfigDict, Field

from api.http.options import idempotency_key, once, read_json_options, validated
from api.http.responses import answer, submitted
from api.http.views import VersionList
from api.openapi.operation import SUBMIT, SUBMIT_HEADERS, SUBMITTED, Errors, Operation
from api.openapi.schemas import options_only
from api.routes.page import as_page, assets
from api.service import service
from shared import errors as e
from shared.artifacts import Location, versions
from shared.artifacts.versions import VersionReport, VersionView
from shared.blocking import to_thread
from shared.durations import duration_pattern, parse_duration
from shared.jobs.contract import JobKind
from shared.jobs.reindex_contract import ReindexRequest
from shared.jobs.worker_registry import most_served
from shared.jobs.worker_report import IndexInfo
from shared.quality.contract import QualityReport
from shared.quality.store import KEPT_S

bp = Blueprint("index", __name__, url_prefix="/v1")

P = ParamSpec("P")
T = TypeVar("T")

_DAMAGED: Errors = (e.IndexDamaged, e.BundleMissing, e.BundleDamaged)
_MOVE: Errors = (*_DAMAGED, e.PromotionRefused, e.VersionNotFound, e.ArtifactUnwritable)


class RollbackQuery(BaseModel):
    """The query of a rollback."""

    model_config = ConfigDict(extra="forbid")

    live: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="refuse unless this version is live, so that a call that is repeated goes back once",
    )


class QualityQuery(BaseModel):
    """The query of a quality report."""

    model_config = ConfigDict(extra="forbid")

    since: str = Field(
        "7d",
        # Not `pattern`: `parse_duration` says better what is wrong.
        json_schema_extra={"pattern": duration_pattern(KEPT_S)},
        description="how far back, 8d at most: 30m, 24h, 7d",
    )


@bp.post("/jobs/reindex")
@Operation(
    "Build a new index from the catalogue, and promote it if it is as good",
    SUBMITTED,
    errors=(*SUBMIT, e.ReindexRunning),
    parameters=SUBMIT_HEADERS,
    body=options_only(ReindexRequest),
)
def submit_reindex() -> Response:
    """POST /v1/jobs/reindex: submit a reindex."""
    key = idempotency_key()
    options, submission = read_json_options(ReindexRequest)
    return submitted(service().accept(JobKind.REINDEX, options, None, submission=submission, idempotency_key=key))


@bp.get("/index")
@Operation("What searches are run against", {200: (IndexInfo, "the live index and model")}, errors=(e.IndexMissing,))
def get_index() -> Response:
    """GET /v1/index: the index and model that a ready worker serves from."""
    serving = [worker.index for worker in service().registry.live() if worker.index]
    if not serving:
        raise e.IndexMissing("no worker with a loaded index has reported; see /readyz")
    facts = {"categories": service().categories.names, "attributes": service().attributes.attributes}
    return answer(serving[0].model_copy(update=facts))


@bp.get("/quality")
@Operation(
    "How good answers are of late: a sample of searches, compared with exact search",
    {200: (QualityReport, "by version of the index and by day, with what is wrong")},
    errors=(e.InvalidRequest,),
    query=QualityQuery,
)
def get_quality() -> Response:
    """GET /v1/quality: what the shadowed searches of some time were like."""
    asked = validated(QualityQuery, {**once(request.args)})
    try:
        since_s = parse_duration(asked.since, most_s=KEPT_S)
    except ValueError as exc:
        raise e.InvalidRequest(f"since: {exc}") from exc
    return answer(service().quality.report(since_s, most_served(service().registry.live())))


@bp.get("/index/versions")
@Operation("The versions of the index, newest first", {200: (VersionList, "all that are kept")}, errors=_DAMAGED)
def list_versions() -> Response:
    """GET /v1/index/versions: the versions of the index that are kept, newest first."""
    return answer(VersionList(versions=_in_store(versions.list_versions, prefix=request.script_root)))


@bp.get("/index/versions/<version>/report")
@Operation(
    "A version beside the one that was live when it was made",
    {200: (VersionReport, "the reindex's report")},
    errors=(*_DAMAGED, e.VersionNotFound),
    page=True,
)
def get_report(version: str) -> Response:
    """GET /v1/index/versions/V/report: the report of the reindex that made a version, as JSON or as a page."""
    found = _in_store(versions.show_version, version, prefix=request.script_root)
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
        return answer(found)
    return as_page(render_template("report.html", version=found.version, report=found.report, assets=assets()))


@bp.post("/index/versions/<version>/promote")
@Operation(
    "Make a version live, newer or older",
    {200: (VersionView, "it is live; workers take it up within seconds")},
    errors=_MOVE,
)
def promote(version: str) -> Response:
    """POST /v1/index/versions/V/promote: make a version live."""
    _in_store(versions.promote_version, version)
    return _promoted("index.promote", version)


@bp.post("/index/rollback")
@Operation(
    "Make live what was live before",
    {200: (VersionView, "the version that is live now")},
    errors=_MOVE,
    query=RollbackQuery,
)
def rollback() -> Response:
    """POST /v1/index/rollback: make the version live that was live before."""
    asked = validated(RollbackQuery, {**once(request.args)})
    return _promoted("index.rollback", _in_store(versions.roll_back, live=asked.live))


def _promoted(action: str, version: str) -> Response:
    """Write the change of the live version to the audit log, and make the response that describes the version."""
    service().audit(action, version)
    return answer(_in_store(versions.show_version, version, prefix=request.script_root).version)


def _in_store(call: Callable[Concatenate[Location, P], T], *args: P.args, **options: P.kwargs) -> T:
    """Look at the versions in the artifact store, or change which is live: that reads files, and waits for a lock."""
    storage = service().settings.storage
    return to_thread(lambda: call(storage, *args, **options))
