"""Errors -> application/problem+json (RFC 9457), each with a stable code and the request's id."""

import logging
import re
import secrets
from http import HTTPStatus

import gevent
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
    UploadTooLarge,
    http_status_of,
)
from shared.jobs import Job
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_LIMIT_BYTES = 64 << 20
_DRAIN_WITHIN_S = 10
_REDIS_RETRY_AFTER_S = 5


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
    response = _problem(error.http_status, error.code, str(error))
    if isinstance(error, ApiKeyRequired | ApiKeyInvalid):
        response.headers["WWW-Authenticate"] = 'Bearer realm="lookalike"'
    if isinstance(error, Overload):
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def job_problem(job: Job) -> Response:
    """The answer of a synchronous call whose job did not succeed."""
    if job.error is None:
        return problem(JobCanceled("the job was cancelled"))
    return _problem(http_status_of(job.error.code), job.error.code, job.error.detail)


def _problem(status: int, code: str, detail: str) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": g.request_id,
    }
    service().counters.refused.labels(code).inc()
    return Response(json.dumps(body), status, content_type="application/problem+json")


def _name_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _stamp(response: Response) -> Response:
    if response.status_code >= HTTPStatus.BAD_REQUEST:
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
    response.headers["X-Content-Type-Options"] = "nosniff"
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


def _drain() -> None:
    """Read away what the client is still sending: closing on it would reset the connection before it reads why."""
    left = min(request.content_length or 0, _DRAIN_LIMIT_BYTES)
    body = request.environ["wsgi.input"]
    try:
        with gevent.Timeout(_DRAIN_WITHIN_S, False):
            while left > 0 and (chunk := body.read(min(left, 1 << 16))):
                left -= len(chunk)
    except OSError:
        pass  # the client has gone


def _redis_error(error: redis.RedisError) -> Response:
    _LOG.warning("event=redis_unreachable reason=%s", type(error).__name__)
    return problem(QueueUnavailable("the job queue cannot be reached; try again", retry_after_s=_REDIS_RETRY_AFTER_S))


def _unexpected(error: Exception) -> Response:
    _LOG.error("event=unexpected_error request_id=%s", g.request_id, exc_info=error)
    return problem(InternalError("something went wrong on our side; quote the request_id when you report it"))
