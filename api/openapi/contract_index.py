"""The calls about the index as data: reindex, versions, promotion. The others are in `api.openapi.contract`."""

from api.http.views import VersionList
from api.openapi.contract import (
    ADMISSION,
    BODY,
    CANCEL_AFTER,
    IDEMPOTENCY_KEY,
    PREFER,
    Errors,
    Operation,
    Schema,
    options_of,
)
from shared import errors as e
from shared.artifacts.versions import VersionReport, VersionView
from shared.jobs.contract import IndexInfo
from shared.jobs.reindex_contract import ReindexRequest
from shared.jobs.view import JobView
from shared.settings import Settings

_VERSION: Schema = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}$"},
}
_LIVE: Schema = {
    "name": "live",
    "in": "query",
    "description": "refuse unless this version is live, so that a call that is repeated goes back once",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}
_HOME: Errors = (e.IndexDamaged, e.BundleMissing, e.BundleDamaged)


def index_operations(settings: Settings) -> dict[tuple[str, str], Operation]:
    """Every call about the index by method and path."""
    moved: Errors = (*_HOME, *BODY, e.PromotionRefused, e.VersionNotFound, e.ArtifactUnwritable)
    return {
        ("post", "/v1/jobs/reindex"): Operation(
            id="submit_reindex",
            summary="Build a new index from the catalogue, and promote it if it is as good",
            tag="index",
            answers={200: (JobView, "the job, finished in the time asked for"), 202: (JobView, "accepted")},
            errors=(*BODY, *ADMISSION, e.InvalidRequest, e.IdempotencyConflict, e.JobGone, e.ReindexRunning)
            + ((e.WebhookRefused,) if settings.webhook_hosts else ()),
            parameters=(PREFER, IDEMPOTENCY_KEY, CANCEL_AFTER),
            body={
                "application/json": {
                    "type": "object",
                    "properties": options_of(ReindexRequest, settings, nullable=True),
                    "additionalProperties": False,
                }
            },
            body_optional=True,
        ),
        ("get", "/v1/index"): Operation(
            id="get_index",
            summary="What searches are run against",
            tag="index",
            answers={200: (IndexInfo, "the live index and model")},
            errors=(e.IndexMissing,),
        ),
        ("get", "/v1/index/versions"): Operation(
            id="list_versions",
            summary="The versions of the index, newest first",
            tag="index",
            answers={200: (VersionList, "all that are kept")},
            errors=_HOME,
        ),
        ("get", "/v1/index/versions/{id}/report"): Operation(
            id="get_report",
            summary="A version beside the one that was live when it was made",
            tag="index",
            answers={200: (VersionReport, "the reindex's report")},
            errors=(*_HOME, e.VersionNotFound),
            parameters=(_VERSION,),
            page=True,
        ),
        ("post", "/v1/index/versions/{id}/promote"): Operation(
            id="promote",
            summary="Make a version live, newer or older",
            tag="index",
            answers={200: (VersionView, "it is live; workers take it up within seconds")},
            errors=moved,
            parameters=(_VERSION,),
        ),
        ("post", "/v1/index/rollback"): Operation(
            id="rollback",
            summary="Make live what was live before",
            tag="index",
            answers={200: (VersionView, "the version that is live now")},
            errors=(*moved, e.InvalidRequest),
            parameters=(_LIVE,),
        ),
    }
