"""/v1/index: what searches are run against, its versions, and which of them is live; and /v1/jobs/reindex."""

from flask import Blueprint, Response, render_template, request
from pydantic import BaseModel, ConfigDict, Field

from api.http.options import once, read_json_options, validated
from api.http.views import VersionList
from api.routes.page import as_page, assets
from api.service import answer, idempotency_key, service, submitted
from shared.artifacts.versions import list_versions, promote_version, roll_back, show_version
from shared.errors import IndexMissing
from shared.jobs.contract import JobKind
from shared.jobs.reindex_contract import ReindexRequest

bp = Blueprint("index", __name__, url_prefix="/v1")


class RollbackQuery(BaseModel):
    """The query of a rollback."""

    model_config = ConfigDict(extra="forbid")

    live: str | None = Field(None, min_length=1, max_length=200)


@bp.post("/jobs/reindex")
def submit_reindex() -> Response:
    key = idempotency_key()
    options, submission = read_json_options(ReindexRequest)
    return submitted(service().accept(JobKind.REINDEX, options, None, submission=submission, idempotency_key=key))


@bp.get("/index")
def get_index() -> Response:
    serving = [worker.index for worker in service().registry.live() if worker.index]
    if not serving:
        raise IndexMissing("no worker with a loaded index has reported; see /readyz")
    return answer(serving[0])


@bp.get("/index/versions")
def versions() -> Response:
    return answer(VersionList(versions=list_versions(service().settings.storage)))


@bp.get("/index/versions/<version>/report")
def report(version: str) -> Response:
    """For people as a page, for programs that ask for JSON as that."""
    found = show_version(service().settings.storage, version)
    if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
        return answer(found)
    return as_page(render_template("report.html", version=found.version, report=found.report, assets=assets()))


@bp.post("/index/versions/<version>/promote")
def promote(version: str) -> Response:
    promote_version(service().settings.storage, version)
    return _moved("index.promote", version)


@bp.post("/index/rollback")
def rollback() -> Response:
    asked = validated(RollbackQuery, {**once(request.args)})
    return _moved("index.rollback", roll_back(service().settings.storage, live=asked.live))


def _moved(action: str, version: str) -> Response:
    service().audit(action, version)
    return answer(show_version(service().settings.storage, version).version)
