"""The calls about single images as data: put, delete, look at. The others are in `api.openapi.contract`."""

from api.openapi.contract import (
    ADMISSION,
    BODY,
    CANCEL_AFTER,
    IDEMPOTENCY_KEY,
    PHOTO_FILE,
    PREFER,
    SUBMIT,
    Errors,
    Operation,
    Schema,
    closed,
    options_of,
)
from api.routes.images import NoOptions, ThumbnailQuery
from api.uploads.bodies import FIELD
from shared import errors as e
from shared.jobs.contract import ImageOptions
from shared.jobs.view import JobView
from shared.settings import Settings

_IMAGE_ID: Schema = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "of the image: printable characters other than a slash",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^/]+$"},
}
_HEADERS = (PREFER, IDEMPOTENCY_KEY, CANCEL_AFTER)
_HOME: Errors = (e.IndexMissing, e.IndexDamaged)


def image_operations(settings: Settings) -> dict[tuple[str, str], Operation]:
    """Every call about single images by method and path."""
    job = {200: (JobView, "the job, finished in the time asked for"), 202: (JobView, "accepted; ask at Location")}
    options = options_of(ImageOptions, settings)
    of_any_job = options_of(NoOptions, settings)
    size = ThumbnailQuery.model_json_schema()["properties"]["size"]
    return {
        ("put", "/v1/images/{id}"): Operation(
            id="put_image",
            summary="Have searches find a photo within two seconds, instead of the one of that id if there is one",
            tag="images",
            answers=job,
            errors=(*SUBMIT, *_HOME, e.ChangesFull),
            parameters=(_IMAGE_ID, *_HEADERS),
            body={"multipart/form-data": closed({FIELD: PHOTO_FILE, **options}, FIELD, *ImageOptions.model_fields)},
        ),
        ("delete", "/v1/images/{id}"): Operation(
            id="delete_image",
            summary="Have searches find a photo no longer; one that is not there is no error",
            tag="images",
            answers=job,
            errors=(
                *(*BODY, *ADMISSION, *_HOME, e.InvalidRequest, e.IdempotencyConflict, e.JobGone, e.WebhookRefused),
                e.ChangesFull,
            ),
            parameters=(
                _IMAGE_ID,
                *_HEADERS,
                *({"name": name, "in": "query", "schema": schema} for name, schema in of_any_job.items()),
            ),
        ),
        ("get", "/v1/images/{id}"): Operation(
            id="get_image",
            summary="A photo of the live index, small",
            tag="images",
            answers={200: (None, "the thumbnail, with an ETag")},
            errors=(*_HOME, e.ImageNotFound, e.InvalidRequest, e.QueueFull),
            parameters=(_IMAGE_ID, {"name": "size", "in": "query", "schema": size}),
            jpeg=True,
        ),
    }
