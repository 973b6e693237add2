"""One request and its answer: what is sent again, when, for how long; and what a refusal is called.

Opens no connection. A call is a generator: it yields what it needs done (send this, pause, work) and is sent the
outcome, so that one description of every call serves blocking and asynchronous clients alike.
"""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import random
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from lookalike.errors import LookalikeError, NoAnswer, UnexpectedAnswer, error_class
from lookalike.models import Answer

_CONNECT_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 30.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_GATEWAY = (502, 503, 504)  # of a proxy in front, which sends no problem+json
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_HOPELESS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)
_LONGEST_S = 86_400.0  # infinity is none of a socket's timeouts

T = TypeVar("T")
A = TypeVar("A", bound=Answer)
Part = tuple[str, tuple[str, bytes, str]]  # field, (file name, content, type)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is sent.

    Attributes:
        holds_s: how long the service may hold its answer back, because it was asked to wait.
        repeatable: may be sent again when nobody knows whether it arrived; true of what has an idempotency key.
        ok: statuses, besides 2xx, that are answers and not errors.
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
    request: Request
    timeout: httpx.Timeout


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks: reads a file, draws."""

    do: Callable[[], object]


Effect = Send | Pause | Work
Call = Generator[Effect, Any, T]


@dataclass(frozen=True)
class Deadline:
    """Until when; `at` is infinite when nobody minds."""

    at: float
    clock: Callable[[], float]

    @property
    def left_s(self) -> float:
        return self.at - self.clock()


class Exchange:
    """Sends requests until they are answered, or time is up.

    Args:
        timeout_s: how long a call may take, with all that is sent again.
        clock: seconds that never go back.
        chance: numbers in [0, 1) that spread out those who come back.
    """

    def __init__(
        self,
        timeout_s: float = 60.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random,
    ) -> None:
        self.timeout_s = timeout_s
        self.clock = clock
        self._chance = chance

    def patience_s(self, timeout_s: float | None) -> float:
        """`timeout_s`, or with None as long as the client's calls may take."""
        return self.timeout_s if timeout_s is None else timeout_s

    def deadline(self, timeout_s: float | None) -> Deadline:
        """So long from now."""
        return Deadline(self.clock() + self.patience_s(timeout_s), self.clock)

    def read(self, answer_type: type[A], request: Request, until: Deadline) -> Call[A]:
        """The answer to a request, as a model; raises as `send`."""
        response = yield from self.send(request, until)
        return understood(answer_type, response)

    def send(self, request: Request, until: Deadline) -> Call[httpx.Response]:
        """The answer to a request.

        Raises:
            LookalikeError: it was refused, for good or for as long as there was time; or nobody answered.
        """
        attempt = 0
        while True:
            try:
                response: httpx.Response = yield Send(request, _timeout(request, until))
            except httpx.RequestError as exc:
                error: LookalikeError = _unanswered(exc)
                again = (request.repeatable or isinstance(exc, _NOT_SENT)) and not _is_hopeless(exc)
                cause: Exception | None = exc
            else:
                if response.is_success or response.status_code in request.ok:
                    return response
                error, cause = refusal(response), None
                again = error.retry_after_s is not None or _is_gateways(response)
            pause_s = self._pause_s(attempt, error.retry_after_s)
            if not again or pause_s >= until.left_s:
                raise error from cause
            yield Pause(pause_s)
            attempt += 1

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Longer each time and never the same; not less than was asked for."""
        backoff_s = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 10), _LONGEST_PAUSE_S) * (0.5 + 0.5 * self._chance())
        return backoff_s if retry_after_s is None else retry_after_s + backoff_s * self._chance()


def understood(answer_type: type[A], response: httpx.Response) -> A:
    """The body of an answer as a model.

    Raises:
        UnexpectedAnswer: it is none.
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
    """The error that an answer is."""
    status = response.status_code
    problem = _problem(response)
    if problem is None and (response.is_redirect or "location" in response.headers):
        target = response.headers.get("location", "")
        return UnexpectedAnswer(f"{response.url} sends elsewhere, to {target}: use that address", status=status)
    told = problem or {}
    code = str(told.get("code") or f"http_{status}")
    detail = str(told.get("detail") or f"{response.url} answered {status} {response.reason_phrase}".rstrip())
    return error_class(code, status)(
        detail,
        code=code,
        status=status,
        retry_after_s=_retry_after_s(response),
        request_id=str(told.get("request_id", "")),
        job_id=str(told.get("job", "")).rpartition("/")[2],
    )


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        return None
    try:
        body = response.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _is_gateways(response: httpx.Response) -> bool:
    return response.status_code in _GATEWAY and _problem(response) is None


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, whether they were said as a number or as a date."""
    said = response.headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def _is_hopeless(exc: httpx.RequestError) -> bool:
    return isinstance(exc, _HOPELESS) or "CERTIFICATE_VERIFY_FAILED" in str(exc)


def _unanswered(exc: httpx.RequestError) -> NoAnswer:
    try:
        url = exc.request.url
        where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    except RuntimeError:  # it was never a request
        where = "the service"
    if isinstance(exc, _NOT_SENT):
        return NoAnswer(
            f"{where} cannot be reached ({exc or type(exc).__name__}); is it running, and is that its address?"
        )
    if isinstance(exc, _HOPELESS):
        return NoAnswer(f"the request to {where} cannot be sent as it is ({exc})")
    return NoAnswer(f"the connection to {where} broke before it had answered ({exc or type(exc).__name__})")


def _timeout(request: Request, until: Deadline) -> httpx.Timeout:
    left_s = min(max(until.left_s, 0.05), _LONGEST_S)
    answer_s = min(request.holds_s + _ANSWER_WITHIN_S, left_s + 1)
    return httpx.Timeout(
        connect=min(_CONNECT_WITHIN_S, left_s), read=answer_s, write=min(_ANSWER_WITHIN_S, left_s), pool=left_s
    )
