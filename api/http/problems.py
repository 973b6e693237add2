"""Turns errors into application/problem+json answers (RFC 9457), each with a stable code and the request's id."""

import errno
import logging
import os
import re
import secrets
import socket
import tempfile
from contextlib import suppress
from http import HTTPStatus

import redis
from flask import Flask, Response, g, json, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from api.service import service
from shared.errors import (
    AcceptanceUnknown,
    ApiKeyInvalid,
    ApiKeyRequired,
    InternalError,
    InvalidRequest,
    JobCanceled,
    LookalikeError,
    Overload,
    QueueUnavailable,
    RecordUnreadable,
    ReindexRunning,
    ResourcesExhausted,
)
from shared.jobs.contract import Job
from shared.jobs.view import location
from shared.redis_client import queue_trouble
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_LIMIT_BYTES = 64 << 20
_DRAIN_WITHIN_S = 10
_REDIS_RETRY_AFTER_S = 5
_OS_RETRY_AFTER_S = 5

_NO_ROOM = "the temporary directory of the API has no room"
_NO_FILES = "the API may not open more files"
# By the error's number.
_LACKING = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,  # a limit of the process on the size of files
    errno.EROFS: "the temporary directory of the API cannot be written",
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: _NO_FILES,
    errno.EAGAIN: "the API may not start more processes",
    errno.ENOMEM: "the host of the API has no memory",
}

# Answers are data: browsers must not run, frame, sniff or cache them, nor hand them to other sites.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask) -> None:
    """Give every request of `app` an id, and every error the form of a problem."""
    app.before_request(_assign_request_id)
    app.after_request(_finish_response)
    app.register_error_handler(LookalikeError, problem)
    app.register_error_handler(RecordUnreadable, _unreadable)
    app.register_error_handler(RequestEntityTooLarge, _too_many_parts)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(redis.RedisError, _redis_error)
    app.register_error_handler(OSError, _os_error)
    app.register_error_handler(Exception, _unexpected)


def problem(error: LookalikeError) -> Response:
    """Make the answer for an error that the service raised on purpose.

    Args:
        error: its code, HTTP status and message go into the answer; an Overload also sets Retry-After.
    """
    job = {}
    if isinstance(error, ReindexRunning | AcceptanceUnknown):
        job["job"] = location(error.job_id, request.script_root)
    response = _problem(error.http_status, error.code, str(error), **job)
    if isinstance(error, ReindexRunning):
        response.headers["Location"] = job["job"]
    if isinstance(error, ApiKeyRequired | ApiKeyInvalid):
        response.headers["WWW-Authenticate"] = 'Bearer realm="lookalike"'
    if isinstance(error, Overload):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def job_problem(job: Job) -> Response:
    """Make the answer of a synchronous call whose job failed or was cancelled."""
    if job.error is None:
        return problem(JobCanceled("the job was cancelled"))
    return _problem(_http_status_of(job.error.code), job.error.code, job.error.detail)


def _http_status_of(code: str) -> int:
    """The HTTP status of an error code in a job's record; 500 for an unknown code."""
    pending: list[type[LookalikeError]] = [LookalikeError]
    while pending:
        error = pending.pop()
        if error.code == code:
            return error.http_status
        pending += error.__subclasses__()
    return 500


def problem_body(status: int, code: str, detail: str, request_id: str, **more: str) -> bytes:
    """Make the JSON body of a problem (RFC 9457).

    Args:
        status: HTTP status.
        code: stable error code.
        detail: what is wrong and what to do, for people.
        request_id: id of the request in the log.
        more: further extension members.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **more,
    }
    return json.dumps(body).encode()


def new_request_id() -> str:
    """Make an id for a request without a usable X-Request-ID."""
    return secrets.token_hex(8)


def _problem(status: int, code: str, detail: str, **more: str) -> Response:
    service().counters.refused.labels(code).inc()
    body = problem_body(status, code, detail, g.request_id, **more)
    return Response(body, status, content_type="application/problem+json")


def _assign_request_id() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()


def _finish_response(response: Response) -> Response:
    """Add the common headers; log errors, and receive what the client still sends."""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        if response.status_code == HTTPStatus.REQUEST_TIMEOUT:
            _stop_receiving()
        else:
            _drain()
        if request.endpoint != "ops.readyz":  # "not ready" is an answer, not a refused request
            event(
                _LOG,
                "request_refused",
                method=request.method,
                path=request.path[:200],
                status=response.status_code,
                request_id=g.request_id,
            )
    response.headers["X-Request-ID"] = g.request_id
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _http_error(error: HTTPException) -> Response:
    """Make the answer for an exception of Flask or Werkzeug: unknown path, wrong method, broken multipart."""
    status = error.code or 500
    phrase = HTTPStatus(status).phrase
    response = _problem(status, phrase.lower().replace(" ", "_"), error.description or phrase)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _too_many_parts(_: RequestEntityTooLarge) -> Response:
    """Make the answer for a form that Werkzeug refuses; bodies that are too large are refused before."""
    return problem(InvalidRequest(f"the form has more than {request.max_form_parts} parts"))


def _stop_receiving() -> None:
    """Shut the connection for reading: gunicorn then sees its end, whatever the client still sends, and closes it."""
    if connection := request.environ.get("gunicorn.socket"):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def _drain() -> None:
    """Read and discard the rest of the body: closing now would reset the connection before the client reads why."""
    if body := g.get("body"):
        with suppress(OSError):  # the client has gone
            body.discard(_DRAIN_WITHIN_S, _DRAIN_LIMIT_BYTES)


def _unreadable(error: RecordUnreadable) -> Response:
    event(_LOG, "record_unreadable", level=logging.WARNING, detail=str(error), request_id=g.request_id)
    return problem(error)


def _redis_error(error: redis.RedisError) -> Response:
    _LOG.warning("event=redis_unreachable reason=%s", type(error).__name__)
    return problem(QueueUnavailable(f"{queue_trouble(error)}; try again", retry_after_s=_REDIS_RETRY_AFTER_S))


def _os_error(error: OSError) -> Response:
    """Make the answer where the host is short of something, which is no fault in the service and may end."""
    lacking = _LACKING.get(error.errno or 0)
    if lacking is None:
        return _unexpected(error)
    event(
        _LOG,
        "resources_exhausted",
        level=logging.WARNING,
        reason=os.strerror(error.errno or 0),
        temporary_directory=tempfile.gettempdir(),
        request_id=g.request_id,
    )
    return problem(ResourcesExhausted(f"{lacking}; try again", retry_after_s=_OS_RETRY_AFTER_S))


def _unexpected(error: Exception) -> Response:
    _LOG.error("event=unexpected_error request_id=%s", g.request_id, exc_info=error)
    return problem(InternalError("something went wrong on our side; quote the request_id when you report it"))
