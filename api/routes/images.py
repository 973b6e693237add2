"""/v1/images: put a photo into the live index, delete it, get its thumbnail. Clients name ids, never file paths."""

import hashlib
import sqlite3
from contextlib import closing
from http import HTTPStatus
from io import BytesIO
from pathlib import Path

from flask import Blueprint, Response, request
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.http.options import idempotency_key, once, read_form_options, read_json_options, validated
from api.http.responses import submitted
from api.openapi.operation import JPEG, PHOTO, SUBMIT, SUBMIT_HEADERS, SUBMITTED, Errors, Operation
from api.openapi.schemas import photo_with
from api.service import service
from api.uploads.bodies import Photo
from shared.artifacts.files import ObjectFile, state_of
from shared.artifacts.home import indexed_photo, live_photo
from shared.artifacts.snapshots import PHOTOS, index_store, read_index_manifest
from shared.artifacts.store import ArtifactStore
from shared.attributes.values import read_values
from shared.blocking import to_thread
from shared.changes.log import entry_order
from shared.errors import (
    ChangesFull,
    ImageNotFound,
    IndexDamaged,
    IndexMissing,
    InputError,
    InvalidRequest,
    QueueFull,
    ResourcesExhausted,
)
from shared.exhaustion import raise_exhaustion
from shared.jobs.contract import (
    NO_WORDS,
    DeleteImageRequest,
    ImageChangeRequest,
    ImageOptions,
    JobKind,
    PutImageRequest,
    Submission,
)

bp = Blueprint("images", __name__, url_prefix="/v1")

_RETRY_AFTER_S = 60
_NO_INDEX: Errors = (IndexMissing, IndexDamaged)


class NoOptions(BaseModel):
    """The options of a call that takes only those of every job."""

    model_config = ConfigDict(extra="forbid")


class ThumbnailQuery(BaseModel):
    """The query of a thumbnail."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(320, ge=32, le=640, description="pixels of the longer side, at most")


@bp.put("/images/<path:image_id>")
@Operation(
    "Have searches find a photo within two seconds, instead of the one of that id if there is one; as JSON without a "
    "photo: the photo of that id stays, and what is said of it changes",
    SUBMITTED,
    errors=(*PHOTO, *SUBMIT, *_NO_INDEX, ChangesFull),
    parameters=SUBMIT_HEADERS,
    body=photo_with(ImageOptions),
)
def put_image(image_id: str) -> Response:
    """PUT /v1/images/ID: submit a job that puts a photo into the live index."""
    named = _validated_id(image_id)
    without_photo = request.is_json
    options, submission = (read_json_options if without_photo else read_form_options)(ImageOptions)
    given = _with_words(options)
    attributes = None if given is None else read_values(given, service().attributes)
    change = PutImageRequest(
        image_id=named.image_id,
        listing_id=options.listing_id,
        category=options.category,
        attributes=attributes,
        without_photo=without_photo,
    )
    key = idempotency_key()
    _refuse_when_full()
    photo = None
    if not without_photo:
        photo = service().reader.read(request, service().spec, keep=True, priority=submission.priority)
    return _accept(JobKind.PUT_IMAGE, change, photo, submission, key)


@bp.delete("/images/<path:image_id>")
@Operation(
    "Have searches find a photo no longer; one that is not there is no error",
    SUBMITTED,
    errors=(*SUBMIT, *_NO_INDEX, ChangesFull),
    query=Submission,
    parameters=SUBMIT_HEADERS,
)
def delete_image(image_id: str) -> Response:
    """DELETE /v1/images/ID: submit a job that deletes a photo from the live index."""
    change = _validated_id(image_id)
    _, submission = read_form_options(NoOptions)
    key = idempotency_key()
    _refuse_when_full()
    return _accept(JobKind.DELETE_IMAGE, change, None, submission, key)


@bp.get("/images/<path:image_id>")
@Operation(
    "A photo of the live index, small",
    {200: (JPEG, "the thumbnail, with an ETag")},
    errors=(*_NO_INDEX, ImageNotFound, QueueFull, ResourcesExhausted),
    query=ThumbnailQuery,
)
def get_image(image_id: str) -> Response:
    """GET /v1/images/ID: the photo's thumbnail, with an ETag."""
    size_px = validated(ThumbnailQuery, {**once(request.args)}).size
    file = _find(_validated_id(image_id).image_id)
    try:
        state = to_thread(lambda: state_of(file))
        etag = hashlib.sha256(f"{state}\0{size_px}".encode()).hexdigest()[:32]
        if request.if_none_match.contains_weak(etag):
            response = Response(status=HTTPStatus.NOT_MODIFIED)
        else:
            with BytesIO(to_thread(file.read_bytes)) as photo:
                response = Response(service().reader.thumbnail(photo, size_px), content_type="image/jpeg")
    except (OSError, InputError) as exc:
        raise_exhaustion(exc)
        raise ImageNotFound("the photo of that id is in the index, but its file cannot be read any more") from exc
    response.set_etag(etag)
    response.headers["Cache-Control"] = "private, no-cache"  # may be kept, but must be revalidated by its ETag
    return response


def _validated_id(image_id: str) -> DeleteImageRequest:
    return validated(DeleteImageRequest, {"image_id": image_id})


def _with_words(options: ImageOptions) -> dict[str, JsonValue] | None:
    """The attributes of a put photo, its `text` among them.

    Raises:
        InvalidRequest: the listings have no words, or an attribute says the same.
    """
    if options.text is None:
        return options.attributes
    if not (names := service().words):
        raise InvalidRequest(NO_WORDS)
    title, *below = options.text.strip().split("\n", 1) if len(names) > 1 else [options.text]
    words: dict[str, JsonValue] = {
        name: text for name, text in zip(names, (title, *below), strict=False) if text.strip()
    }
    given = options.attributes or {}
    if both := [name for name in words if name in given]:
        raise InvalidRequest(f"text: it stands for the attribute {both[0]}, too; send one of them")
    return {**given, **words}


def _accept(
    kind: JobKind, change: ImageChangeRequest, photo: Photo | None, submission: Submission, key: str | None
) -> Response:
    change = change.model_copy(update={"sequence": service().changes.next_sequence()})
    return submitted(service().accept(kind, change, photo, submission=submission, idempotency_key=key))


def _refuse_when_full() -> None:
    """Raise ChangesFull if too many photos were put or deleted since the index was built."""
    limit = service().settings.max_changes
    *_, compacted_through = _live_snapshot()
    if service().changes.count_after(compacted_through) >= limit:
        raise ChangesFull(
            f"{limit} photos were put or deleted since the index was built; run a reindex, then try again",
            retry_after_s=_RETRY_AFTER_S,
        )


def _live_snapshot() -> tuple[ArtifactStore, str, str]:
    """The live snapshot of the index.

    Returns:
        The store of snapshots, the live version, and the last entry of the change log that is compacted into it.

    Raises:
        IndexMissing: none is live yet.
    """
    store = index_store(service().settings.storage)

    def read() -> tuple[ArtifactStore, str, str]:
        if (version := store.current()) is None:
            raise IndexMissing("no index snapshot has been promoted yet; `lookalike index build` makes one")
        return store, version, read_index_manifest(store, version).compacted_through

    return to_thread(read)


def live_sha256(image_id: str) -> str:
    """SHA-256 of the file of a photo of the live index; raises as `_find`."""
    _, sha256 = _located(image_id)
    return sha256


def _find(image_id: str) -> Path | ObjectFile:
    """Find the file of a photo of the live index: its pending change, else the live snapshot's file.

    Raises:
        ImageNotFound: there is no such photo.
        IndexDamaged: the snapshot's table of photos cannot be read.
    """
    settings = service().settings
    path, sha256 = _located(image_id)
    return to_thread(lambda: indexed_photo(settings, path, sha256)) if path else live_photo(settings.storage, sha256)


def _located(image_id: str) -> tuple[str, str]:
    """Path, as snapshots have it, and SHA-256 of a live photo's file; no path of one put since. Raises as `_find`."""
    store, version, compacted_through = _live_snapshot()
    newest = service().changes.newest(image_id)
    if newest and entry_order(newest.entry_id) > entry_order(compacted_through):
        if newest.sha256 is None:
            raise ImageNotFound("the photo of that id was deleted")
        return "", newest.sha256
    return to_thread(lambda: _located_in(store, version, image_id))


def _located_in(store: ArtifactStore, version: str, image_id: str) -> tuple[str, str]:
    """Path and SHA-256 of the file of a photo of a snapshot; raises as `_find`."""
    try:
        uri = f"{store.file(version, PHOTOS).absolute().as_uri()}?immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as photos:
            query = "SELECT path, sha256 FROM photos WHERE image_id = ?"
            found: tuple[str, str] | None = photos.execute(query, (image_id,)).fetchone()
    except sqlite3.Error as exc:
        raise_exhaustion(exc)
        raise IndexDamaged(f"{version}: {PHOTOS} cannot be read") from exc
    if found is None:
        raise ImageNotFound("the live index has no photo of that id")
    return found
