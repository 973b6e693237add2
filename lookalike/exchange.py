"""Sends a request, repeats it when that makes sense, and turns answers into models or errors. Performs no I/O.

A call is a generator: it yields the I/O it needs (`Send`, `Pause`, `Work`) and receives the outcome, so that blocking
and asynchronous clients share one implementation of every call.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isnan
from numbers import Real
from random import random
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from lookalike.error_codes import error_class
from lookalike.errors import InputError, LookalikeError, NoAnswer, UnexpectedAnswer
from lookalike.models import Answer

_CONNECT_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 30.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_GATEWAY_STATUSES = (502, 503, 504)  # of a proxy in front of the service, which sends no problem+json
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NOT_REPEATABLE = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
_LONGEST_S = 86_400.0  # sockets take no infinite timeout

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
Part = tuple[str, tuple[str, bytes, str]]  # field, (file name, content, type)


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request to the service.

    Attributes:
        method: HTTP method.
        path: path of the URL, percent-encoded.
        query: parameters of the URL.
        headers: besides those that every request has.
        form: text fields of a form.
        files: files of a multipart form.
        json: JSON body.
        holds_s: seconds that the service may hold its answer back, because it was asked to wait for a job.
        repeatable: may be sent again if it is not known whether it arrived, because it has an idempotency key or
            changes nothing.
        ok: statuses, besides 2xx, whose bodies are answers and not errors.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str | list[str]] | None = None
    files: tuple[Part, ...] = ()
    json: object = None
    holds_s: float = 0.0
    repeatable: bool = True
    ok: tuple[int, ...] = ()


@dataclass(frozen=True)
class Send:
    """Send a request, within the given timeouts; the outcome is an httpx.Response."""

    request: Request
    timeout: httpx.Timeout


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds; the outcome is None."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call a function that blocks, such as one that reads a file; the outcome is what it returns."""

    do: Callable[[], object]


Effect = Send | Pause | Work
Call = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Deadline:
    """When a call has to end, in seconds of `clock`; `at` is infinite for a call without a limit."""

    at: float
    clock: Callable[[], float]

    @property
    def left_s(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - self.clock()


class Exchange:
    """Sends requests, and repeats them until they are answered or a deadline has passed.

    Args:
        timeout_s: seconds that a call may take, with all repeated requests.
        clock: monotonic time in seconds.
        chance: random numbers in [0, 1), the jitter of the pauses between requests.
        proxy: what requests go through, for people; empty for none.

    Raises:
        InputError: `timeout_s` is no number of seconds.
    """

    def __init__(
        self,
        timeout_s: float = 60.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random,
        proxy: str = "",
    ) -> None:
        self.timeout_s = seconds(timeout_s)
        self._proxy = proxy
        self.clock = clock
        self._chance = chance

    def patience_s(self, timeout_s: float | None) -> float:
        """`timeout_s`, or if it is None the client's own timeout; in seconds.

        Raises:
            InputError: it is no number of seconds.
        """
        return self.timeout_s if timeout_s is None else seconds(timeout_s)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """The deadline `timeout_s` seconds from now; None means the client's own timeout."""
        return Deadline(self.clock() + self.patience_s(timeout_s), self.clock)

    def read(self, answer_type: type[A], request: Request, until: Deadline) -> Call[A]:
        """Send a request and parse its answer.

        Args:
            answer_type: model of the answer.
            request: what to send.
            until: when to give up.

        Raises:
            UnexpectedAnswer: the answer does not fit the model.
            LookalikeError: as of `send`.
        """
        response = yield from self.send(request, until)
        return parse_answer(answer_type, response)

    def send(self, request: Request, until: Deadline) -> Call[httpx.Response]:
        """Send a request, and repeat it with growing pauses while that makes sense.

        It is repeated after answers with Retry-After and after those of a proxy without a service behind it; after a
        broken connection if it is repeatable or was never sent.

        Returns:
            The first answer that is not an error.

        Raises:
            NoAnswer: the service could not be reached, or the connection broke.
            LookalikeError: the error that the service answered with.
        """
        attempt = 0
        while True:
            try:
                response: httpx.Response = yield Send(request, _timeout(request, until))
            except httpx.RequestError as exc:
                error: LookalikeError = _unanswered(exc, self._proxy)
                again = (request.repeatable or isinstance(exc, _NOT_SENT)) and not _is_permanent(exc)
                cause: Exception | None = exc
            else:
                if response.is_success or response.status_code in request.ok:
                    return response
                error, cause = self._refused(response), None
                again = error.retry_after_s is not None or _is_of_proxy(response)
            pause_s = self._pause_s(attempt, error.retry_after_s)
            if not again or pause_s >= until.left_s:
                raise error from cause
            yield Pause(pause_s)
            attempt += 1

    def _refused(self, response: httpx.Response) -> LookalikeError:
        if self._proxy and response.status_code == httpx.codes.PROXY_AUTHENTICATION_REQUIRED:
            return NoAnswer(f"{self._proxy} asks for a user name and password", status=response.status_code)
        return refusal(response)

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Exponential backoff with jitter, in seconds; never less than Retry-After."""
        backoff_s = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_S) * (0.5 + 0.5 * self._chance())
        return backoff_s if retry_after_s is None else retry_after_s + backoff_s * self._chance()


def seconds(timeout_s: object) -> float:
    """Check a time limit.

    Raises:
        InputError: it is no number.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, Real) or isnan(timeout_s):
        raise InputError(f"timeout_s: a number of seconds is needed, not {timeout_s!r}")
    return timeout_s if isinstance(timeout_s, int | float) else float(timeout_s)


def parse_answer(answer_type: type[A], response: httpx.Response) -> A:
    """Parse the body of an answer.

    Raises:
        UnexpectedAnswer: it does not fit the model.
    """
    try:
        return answer_type.model_validate_json(response.content)
    except ValidationError as exc:
        raise UnexpectedAnswer(
            f"{response.url} answered {response.status_code} with what is no {answer_type.__name__}; "
            "is a Lookalike service there, and of this client's version?",
            status=response.status_code,
        ) from exc


def refusal(response: httpx.Response) -> LookalikeError:
    """Make the error for an answer whose status says that the request failed."""
    status = response.status_code
    problem = _problem(response)
    if problem is None and (response.is_redirect or "location" in response.headers):
        target = response.headers.get("location", "")
        return UnexpectedAnswer(f"{response.url} sends elsewhere, to {target}: use that address", status=status)
    facts = problem or {}
    code = str(facts.get("code") or f"http_{status}")
    detail = str(facts.get("detail") or f"{response.url} answered {status} {response.reason_phrase}".rstrip())
    return error_class(code, status)(
        detail,
        code=code,
        status=status,
        retry_after_s=_retry_after_s(response),
        request_id=str(facts.get("request_id", "")),
        job_id=str(facts.get("job", "")).rpartition("/")[2],
    )


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The body as RFC 9457 problem details; None if it is something else."""
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _is_of_proxy(response: httpx.Response) -> bool:
    return response.status_code in _GATEWAY_STATUSES and _problem(response) is None


def _retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds, which the header gives as a number or as a date; None without the header."""
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal():
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None


def _is_permanent(exc: httpx.RequestError) -> bool:
    return isinstance(exc, _NOT_REPEATABLE) or "CERTIFICATE_VERIFY_FAILED" in str(exc)


def _unanswered(exc: httpx.RequestError, proxy: str) -> NoAnswer:
    try:
        url = exc.request.url
        where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    except RuntimeError:  # httpx made no request yet
        where = "the service"
    if isinstance(exc, httpx.ProxyError):
        return NoAnswer(f"{proxy or 'the proxy'} does not connect to {where} ({exc})")
    if proxy and isinstance(exc, _NOT_SENT) and "SSL" not in str(exc):
        return NoAnswer(f"{proxy} cannot be reached ({exc or type(exc).__name__}); {where} was not asked")
    if isinstance(exc, _NOT_SENT):
        return NoAnswer(
            f"{where} cannot be reached ({exc or type(exc).__name__}); is it running, and is that its address?"
        )
    if isinstance(exc, _NOT_REPEATABLE):
        return NoAnswer(f"the request to {where} cannot be sent as it is ({exc})")
    if isinstance(exc, httpx.ReadTimeout):
        return NoAnswer(f"{where} took the request and has not answered in time: it hangs, or has too much to do")
    return NoAnswer(f"the connection to {where} broke before it had answered ({exc or type(exc).__name__})")


def _timeout(request: Request, until: Deadline) -> httpx.Timeout:
    left_s = min(max(until.left_s, 0.05), _LONGEST_S)
    answer_s = min(request.holds_s + _ANSWER_WITHIN_S, left_s + 1)
    return httpx.Timeout(
        connect=min(_CONNECT_WITHIN_S, left_s), read=answer_s, write=min(_ANSWER_WITHIN_S, left_s), pool=left_s
    )
