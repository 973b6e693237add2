"""Errors -> application/problem+json (RFC 9457), each with a stable code and the request's id."""

import logging
import re
import secrets
import socket
from contextlib import suppress
from http import HTTPStatus

import redis
from flask import Flask, Response, g, json, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from api.service import service
from shared.errors import (
    ApiKeyInvalid,
    ApiKeyRequired,
    InternalError,
    InvalidRequest,
    JobCanceled,
    LookalikeError,
    Overload,
    QueueUnavailable,
    ReindexRunning,
    UploadTooLarge,
)
from shared.jobs.contract import Job
from shared.jobs.view import location
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_LIMIT_BYTES = 64 << 20
_DRAIN_WITHIN_S = 10
_REDIS_RETRY_AFTER_S = 5

# Every answer is data for the program that asked: nothing in it runs, is framed, guessed at, kept or shared.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: Flask) -> None:
    """Give every request an id and every error the same shape."""
    app.before_request(_name_request)
    app.after_request(_stamp)
    app.register_error_handler(LookalikeError, problem)
    app.register_error_handler(RequestEntityTooLarge, _too_large)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(redis.RedisError, _redis_error)
    app.register_error_handler(Exception, _unexpected)


def problem(error: LookalikeError) -> Response:
    """The answer an error of ours becomes."""
    job = {"job": location(error.job_id)} if isinstance(error, ReindexRunning) else {}
    response = _problem(error.http_status, error.code, str(error), **job)
    if job:
        response.headers["Location"] = job["job"]
    if isinstance(error, ApiKeyRequired | ApiKeyInvalid):
        response.headers["WWW-Authenticate"] = 'Bearer realm="lookalike"'
    if isinstance(error, Overload):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def job_problem(job: Job) -> Response:
    """The answer of a synchronous call whose job did not succeed."""
    if job.error is None:
        return problem(JobCanceled("the job was cancelled"))
    return _problem(_http_status_of(job.error.code), job.error.code, job.error.detail)


def _http_status_of(code: str) -> int:
    """The HTTP status of an error known by its code, as a job's record holds it; 500 for a code unknown here."""
    pending: list[type[LookalikeError]] = [LookalikeError]
    while pending:
        error = pending.pop()
        if error.code == code:
            return error.http_status
        pending += error.__subclasses__()
    return 500


def problem_body(status: int, code: str, detail: str, request_id: str, **more: str) -> bytes:
    """A problem as RFC 9457 writes it, with its extension members."""
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
    """An id for a request that has not brought a usable one."""
    return secrets.token_hex(8)


def _problem(status: int, code: str, detail: str, **more: str) -> Response:
    service().counters.refused.labels(code).inc()
    body = problem_body(status, code, detail, g.request_id, **more)
    return Response(body, status, content_type="application/problem+json")


def _name_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()


def _stamp(response: Response) -> Response:
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        if response.status_code == HTTPStatus.REQUEST_TIMEOUT:
            _hang_up()
        else:
            _drain()
        if request.endpoint != "ops.readyz":  # a probe that says "not yet" refuses nobody
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
    """What Flask and Werkzeug raise: unknown paths, wrong methods, broken multipart."""
    status = error.code or 500
    phrase = HTTPStatus(status).phrase
    response = _problem(status, phrase.lower().replace(" ", "_"), error.description or phrase)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _too_large(_: RequestEntityTooLarge) -> Response:
    limit = request.max_content_length or 0
    if (request.content_length or 0) > limit:
        return problem(UploadTooLarge(f"the request is larger than {limit >> 20} MiB; send a smaller photo"))
    return problem(InvalidRequest(f"the form has more than {request.max_form_parts} parts"))


def _hang_up() -> None:
    """Have gunicorn read the end of the connection, whatever the client still sends, and close it."""
    if connection := request.environ.get("gunicorn.socket"):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def _drain() -> None:
    """Read away what the client is still sending: closing on it would reset the connection before it reads why."""
    if body := g.get("body"):
        with suppress(OSError):  # the client has gone
            body.discard(_DRAIN_WITHIN_S, _DRAIN_LIMIT_BYTES)


def _redis_error(error: redis.RedisError) -> Response:
    _LOG.warning("event=redis_unreachable reason=%s", type(error).__name__)
    return problem(QueueUnavailable("the job queue cannot be reached; try again", retry_after_s=_REDIS_RETRY_AFTER_S))


def _unexpected(error: Exception) -> Response:
    _LOG.error("event=unexpected_error request_id=%s", g.request_id, exc_info=error)
    return problem(InternalError("something went wrong on our side; quote the request_id when you report it"))
