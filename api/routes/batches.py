"""/v1/batches: many photos in one request. Each becomes a job of its own; an unusable photo fails alone."""

import hashlib
import secrets
import time
from collections import Counter
from http import HTTPStatus
from typing import IO, Literal

from flask import Blueprint, Response, request

from api.http.auth import caller
from api.http.options import idempotency_key, read_options, wait_s
from api.http.responses import answer
from api.http.views import BatchCounts, BatchItemView, BatchLinks, BatchView
from api.openapi.operation import CANCEL_AFTER, IDEMPOTENCY_KEY, PHOTO, SUBMIT, WAIT, Operation
from api.openapi.schemas import many_photos
from api.service import digest_of, service
from api.uploads.bodies import FIELD, require_whole
from shared.blocking import to_thread
from shared.errors import (
    BatchNotFound,
    IdempotencyPending,
    ImageMissing,
    InvalidRequest,
    JobGone,
    JobNotFound,
    LookalikeError,
    Overload,
    QueueUnavailable,
    UploadTooLarge,
)
from shared.jobs.batches import Batch, BatchItem
from shared.jobs.contract import (
    PHOTO_REQUESTS,
    EmbedRequest,
    Job,
    JobError,
    JobKind,
    JobRequest,
    JobStatus,
    Priority,
    Submission,
)
from shared.jobs.records import Idempotency
from shared.jobs.view import location

bp = Blueprint("batches", __name__, url_prefix="/v1")

_CUSTOM_ID = "custom_id"
_GONE: Literal["gone"] = "gone"  # the job has ended, and its record has expired
_MAX_ID_LENGTH = 200


@bp.post("/batches")
@Operation(
    "Many photos in one request, each with its own outcome",
    {202: (BatchView, "accepted; ask at Location")},
    errors=(*PHOTO, *SUBMIT, IdempotencyPending),
    parameters=(IDEMPOTENCY_KEY, CANCEL_AFTER),
    body=many_photos,
)
def submit_batch() -> Response:
    """POST /v1/batches: accept many photos in one request."""
    settings = service().settings
    request.max_content_length = request.max_form_memory_size = settings.max_batch_mb << 20
    request.max_form_parts = 2 * settings.max_batch_photos + 32
    kind, key = _kind(), idempotency_key()
    options, submission = read_options(PHOTO_REQUESTS[kind], ignore=frozenset({_CUSTOM_ID, "kind"}))
    if options.box is not None:
        raise InvalidRequest("box: photos of a batch are taken whole; submit one with a box as a job of its own")
    if isinstance(options, EmbedRequest) and options.propose_boxes:
        raise InvalidRequest("propose_boxes: a batch has none; submit the photo as a job of its own")
    if "priority" not in submission.model_fields_set:
        submission = submission.model_copy(update={"priority": Priority.BULK})
    service().check(options, submission)
    photos = _photos()
    parts = ["batch", kind.value, options.model_dump_json(), submission.model_dump_json()]
    idempotency = None
    batch_id, owner = secrets.token_hex(16), caller().owner
    if key is not None:
        # One photo in memory at a time: a batch may have more bytes than the process should take.
        contents = to_thread(
            lambda: [text for name, photo in photos.items() for text in (name, hashlib.sha256(photo.read()).digest())]
        )
        idempotency = Idempotency(key, digest_of(*parts, *contents))
        if first := service().batches.begin(batch_id, owner, idempotency):
            return _show(first, _jobs(first), status=202)
    try:
        items = _accept(kind, options, submission, photos, key)
        batch = Batch(id=batch_id, kind=kind, owner=owner, created_at=service().store.now(), items=items)
        service().batches.save(batch, idempotency)
    except BaseException:
        if idempotency:
            service().batches.give_up(owner, idempotency)
        raise
    return _show(batch, _jobs(batch), status=202)


@bp.get("/batches/<batch_id>")
@Operation(
    "A batch", {200: (BatchView, "the batch and the outcomes so far")}, errors=(BatchNotFound,), parameters=(WAIT,)
)
def get_batch(batch_id: str) -> Response:
    """GET /v1/batches/ID: the state of a batch; `wait` waits for its end."""
    until = time.monotonic() + wait_s()
    batch = service().batches.get(batch_id, owner=caller().reads)
    jobs = _jobs(batch)
    while (unfinished := _unfinished(jobs)) and (left_s := until - time.monotonic()) > 0:
        # The job submitted last ends about last, so that few are left after it: all are read again a few times only.
        try:
            is_over = service().wait(jobs[unfinished[-1]], left_s).status.terminal
        except (JobNotFound, JobGone):
            is_over = True
        ended = {job_id: job for job_id, job in jobs.items() if job.status.terminal}
        jobs = ended | _read(unfinished)
        if not is_over:
            break  # time is up, or too many requests wait already
    return _show(batch, jobs)


@bp.post("/batches/<batch_id>/cancel")
@Operation(
    "Cancel the jobs of a batch that have not ended",
    {200: (BatchView, "nobody works on it any more"), 202: (BatchView, "a worker has some in hand")},
    errors=(BatchNotFound,),
)
def cancel_batch(batch_id: str) -> Response:
    """POST /v1/batches/ID/cancel: cancel all unfinished jobs of a batch."""
    batch = service().batches.get(batch_id, owner=caller().reads)
    service().store.cancel_all(_unfinished(_jobs(batch)))
    if batch.owner != caller().owner:
        service().audit("batches.cancel", batch.id)
    response = _show(batch, _jobs(batch))
    if "Retry-After" in response.headers:  # a worker still holds some of the jobs
        response.status_code = HTTPStatus.ACCEPTED
    return response


def _kind() -> JobKind:
    given = request.args.get("kind") or request.form.get("kind") or JobKind.SEARCH.value
    if given not in PHOTO_REQUESTS:
        raise InvalidRequest(f"kind: must be one of {', '.join(PHOTO_REQUESTS)}")
    return JobKind(given)


def _photos() -> dict[str, IO[bytes]]:
    """Get the photos of the request by their custom_id, in the order sent.

    Raises:
        ImageMissing: there is none.
        UploadTooLarge: there are too many.
        InvalidRequest: the custom_ids are wrong.
    """
    if request.mimetype != "multipart/form-data":
        raise ImageMissing(f"send the photos as multipart/form-data, each in a field named {FIELD!r}")
    parts, ids = request.files.getlist(FIELD), request.form.getlist(_CUSTOM_ID)
    require_whole()
    if not parts:
        raise ImageMissing(f"at least one multipart field {FIELD!r} is required")
    limit = service().settings.max_batch_photos
    if len(parts) > limit:
        raise UploadTooLarge(f"{len(parts)} photos are too many, the limit is {limit}; send several batches")
    if ids and len(ids) != len(parts):
        raise InvalidRequest(f"{_CUSTOM_ID}: {len(ids)} were sent for {len(parts)} photos; send one each, or none")
    if any(not 0 < len(custom_id) <= _MAX_ID_LENGTH for custom_id in ids):
        raise InvalidRequest(f"{_CUSTOM_ID}: 1 to {_MAX_ID_LENGTH} characters are needed")
    named = dict(zip(ids or map(str, range(len(parts))), parts, strict=True))
    if len(named) < len(parts):
        raise InvalidRequest(f"{_CUSTOM_ID}: two photos have the same")
    return {custom_id: part.stream for custom_id, part in named.items()}


def _accept(
    kind: JobKind, options: JobRequest, submission: Submission, photos: dict[str, IO[bytes]], key: str | None
) -> list[BatchItem]:
    """Decode the photos and accept a job for each that can be decoded.

    Args:
        kind: search or embed.
        options: of that kind.
        submission: options of every job.
        photos: file by custom_id.
        key: the batch's idempotency key. Each photo gets a key derived from it, so that a batch that is repeated after
            a broken connection finds the jobs that were accepted.

    Returns:
        An item for each photo: its job, or the error that says why there is none.

    Raises:
        Overload: no job was accepted.
        QueueUnavailable: Redis stopped answering; with `key` a repeated batch finds the jobs that were accepted.
    """
    items: list[BatchItem] = []
    decoded = service().reader.decode_all(list(photos.values()), service().spec, submission.priority)
    for custom_id, photo in zip(photos, decoded, strict=True):
        try:
            if isinstance(photo, LookalikeError):
                raise photo
            item_key = None if key is None else f"{key}\0{custom_id}"  # a client's key cannot contain a zero byte
            job = service().accept(kind, options, photo, submission=submission, idempotency_key=item_key)
        except LookalikeError as error:
            resumable = key is not None and isinstance(error, QueueUnavailable)
            if resumable or (isinstance(error, Overload) and not any(item.job_id for item in items)):
                raise
            items.append(BatchItem(custom_id=custom_id, error=_error(error)))
        else:
            items.append(BatchItem(custom_id=custom_id, job_id=job.id))
    return items


def _error(error: LookalikeError) -> JobError:
    return JobError(code=error.code, detail=str(error), retryable=error.retryable)


def _jobs(batch: Batch) -> dict[str, Job]:
    return _read([item.job_id for item in batch.items if item.job_id])


def _read(job_ids: list[str]) -> dict[str, Job]:
    """Jobs by id, without those whose records have expired."""
    return {job.id: job for job in service().store.get_all(job_ids) if job}


def _unfinished(jobs: dict[str, Job]) -> list[str]:
    """Ids, in the order given."""
    return [job.id for job in jobs.values() if not job.status.terminal]


def _show(batch: Batch, jobs: dict[str, Job], *, status: int = 200) -> Response:
    items = [_view(item, jobs.get(item.job_id or "")) for item in batch.items]
    counts = Counter(dict.fromkeys((*map(str, JobStatus), _GONE), 0))
    counts.update(item.status for item in items)
    is_open = any(counts[state.value] for state in JobStatus if not state.terminal)
    at = f"{request.script_root}/v1/batches/{batch.id}"
    body = BatchView(
        id=batch.id,
        kind=batch.kind,
        status="running" if is_open else "ended",
        counts=BatchCounts(total=len(items), **counts),
        items=items,
        links=BatchLinks(self=at, cancel=f"{at}/cancel"),
    )
    response = answer(body, status=status)
    if is_open:
        response.headers["Retry-After"] = "1"
    if status == HTTPStatus.ACCEPTED:
        response.headers["Location"] = at
    return response


def _view(item: BatchItem, job: Job | None) -> BatchItemView:
    state: JobStatus | Literal["gone"] = JobStatus.FAILED
    if item.job_id:
        state = job.status if job else _GONE
    gone = _error(JobGone("the job is finished and its result has expired")) if state == _GONE else None
    return BatchItemView(
        custom_id=item.custom_id,
        job_id=item.job_id,
        status=state,
        result=job.result if job else None,
        error=job.error if job else gone or item.error,
        links={"job": location(job.id, request.script_root)} if job else {},
    )
