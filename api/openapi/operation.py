"""What /openapi.json says of a call, written beside its route: `@Operation(...)` under `@bp.post(...)`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from api.http.options import CANCEL_AFTER_PATTERN
from shared import errors as e
from shared.errors import LookalikeError
from shared.jobs.view import JobView
from shared.settings import Settings

Schema = dict[str, Any]
Errors = tuple[type[LookalikeError], ...]
Answers = Mapping[int, tuple[type[BaseModel] | Schema | str, str]]
Body = Callable[[Settings], dict[str, Schema]]
View = TypeVar("View", bound=Callable[..., Any])

_ATTRIBUTE = "_operation"


@dataclass(frozen=True)
class Operation:
    """Describes the view that it decorates.

    Path, method, tag, id and whether a key is needed are read from the route.

    Attributes:
        summary: what the call does.
        answers: body and meaning by status. A body is a model, a schema, or a media type other than JSON.
        errors: what can be wrong besides what can be with every call, every body and every query.
        query: the model of the query.
        parameters: others in the query and in headers.
        body: the schemas of what is sent, by media type; it may be left out where none of their fields is required.
        page: the 200 is a page, but for those who ask for JSON.
    """

    summary: str
    answers: Answers
    errors: Errors = ()
    query: type[BaseModel] | None = None
    parameters: tuple[Schema, ...] = ()
    body: Body | None = None
    page: bool = False

    def __call__(self, view: View) -> View:
        view.__dict__[_ATTRIBUTE] = self
        return view

    @staticmethod
    def of(view: Callable[..., Any]) -> "Operation | None":
        """The description of a view; None: it is no part of the contract."""
        found = view.__dict__.get(_ATTRIBUTE)
        return found if isinstance(found, Operation) else None


PHOTO: Errors = (e.ImageMissing, e.InvalidRequest, e.PhotoUndecodable, e.UnsupportedFormat, e.PhotoTooLarge)
ADMISSION: Errors = (e.QueueFull, e.QueueShareFull, e.AcceptanceUnknown)
SUBMIT: Errors = (*ADMISSION, e.InvalidRequest, e.IdempotencyConflict, e.JobGone, e.WebhookRefused)
JOB: Errors = (e.JobNotFound, e.JobGone)

TEXT, JPEG = "text/plain", "image/jpeg"
SUBMITTED: Answers = {
    200: (JobView, "the job, finished in the time asked for"),
    202: (JobView, "accepted; ask at Location"),
}


def _header(name: str, description: str, **more: object) -> Schema:
    return {"name": name, "in": "header", "description": description, **more}


IDEMPOTENCY_KEY = _header(
    "Idempotency-Key",
    "the same key and request give the same job, however often they are sent",
    schema={"type": "string", "pattern": "^[!-~]{1,255}$"},
)
CANCEL_AFTER = _header(
    "Cancel-After",
    "as `deadline_s`, with an optional unit: 90, 90s, 5m, 1h",
    schema={"type": "string", "pattern": CANCEL_AFTER_PATTERN},
)
PREFER = _header(
    "Prefer",
    "`wait=N`: answer when the job has ended, within N <= 30 seconds",
    schema={"type": "string"},
    example="wait=10",
)
SUBMIT_HEADERS = (PREFER, IDEMPOTENCY_KEY, CANCEL_AFTER)
WAIT: Schema = {
    "name": "wait",
    "in": "query",
    "description": "seconds to wait for the end, 30 at most",
    "schema": {"type": "number", "minimum": 0},
}
