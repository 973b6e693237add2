"""/v1/feedback: what people did with the results of searches."""

from flask import Blueprint, Response

from api.http.options import read_json
from api.http.responses import answer
from api.http.views import FeedbackView
from api.openapi.operation import JOB, Operation
from api.openapi.schemas import json_only
from api.service import service
from shared import errors as e
from shared.feedback.contract import FeedbackRequest, impression_of

bp = Blueprint("feedback", __name__, url_prefix="/v1")


@bp.post("/feedback")
@Operation(
    "Tell what somebody did with a result of a search, or which category would have been right",
    {200: (FeedbackView, "stored; the same event again changes nothing")},
    errors=(e.InvalidRequest, *JOB, e.ImageNotFound, e.FeedbackFull),
    body=json_only(FeedbackRequest),
)
def give_feedback() -> Response:
    """POST /v1/feedback: store an event of feedback."""
    request = read_json(FeedbackRequest)
    impression, position = impression_of(service().find(request.job_id), request)
    if request.category is not None:
        service().categories.position(request.category)
    service().give_feedback(impression, request)
    return answer(FeedbackView(**request.model_dump(), position=position, index_version=impression.index_version))
