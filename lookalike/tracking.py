"""Jobs watched until they end, cancelled, tried again; and what each end means. Knows not what can be submitted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from lookalike.errors import JobCanceled, JobFinished, LookalikeError, TimedOut, UnexpectedAnswer, error_class
from lookalike.exchange import Call, Deadline, Exchange, Pause, Request
from lookalike.forms import key_of
from lookalike.models import RESULTS, Answer, Failure, JobState, Progress
from lookalike.progress import Tell, Wanted, told

_HELD_S = 20.0  # by the service, in one request; proxies give up at 30 or 60
_HELD_WATCHED_S = 1.0
_POLL_S = 0.5

R = TypeVar("R")
_FOREVER_S = float("inf")


@dataclass
class Ticket(Generic[R]):
    """A submitted job.

    Attributes:
        bind_query: what is done to its result before the caller gets it.
    """

    state: JobState
    bind_query: Callable[[Any], None] = field(default=lambda result: None)


class Tracking(Exchange):
    """What can be done with a job."""

    def refresh(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Ask how the job stands."""
        ticket.state = yield from self._state(ticket.state.id, self.deadline(None), holds_s=0)
        return ticket

    def wait(self, ticket: Ticket[R], timeout_s: float | None = None, progress: Wanted = False) -> Call[R]:
        """The result of the job, once it has ended.

        Args:
            timeout_s: how long to wait; None: for as long as it takes.

        Raises:
            TimedOut: it has not ended; the job goes on.
            LookalikeError: it failed, with the job's code; it was cancelled; it expired.
        """
        until = self.deadline(_FOREVER_S if timeout_s is None else timeout_s)
        with told(progress) as tell:
            yield from self._follow(ticket, until, tell)
        return result_of(ticket)

    def retry(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Submit a failed job again, as a new one."""
        headers = {"Idempotency-Key": key_of({})}
        request = Request(method="POST", path=f"/v1/jobs/{ticket.state.id}/retry", headers=headers)
        return Ticket((yield from self.read(JobState, request, self.deadline(None))), ticket.bind_query)

    def cancel(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Ask that nobody works on the job any more; what is in hand is let go of a moment later.

        Raises:
            JobFinished: it has ended otherwise.
        """
        request = Request(method="POST", path=f"/v1/jobs/{ticket.state.id}/cancel")
        try:
            ticket.state = yield from self.read(JobState, request, self.deadline(None))
        except JobFinished:
            # Perhaps by ourselves: the answer to the first attempt may have been lost.
            yield from self.refresh(ticket)
            if ticket.state.status != "canceled":
                raise
        return ticket

    def _follow(self, ticket: Ticket[R], until: Deadline, tell: Tell | None) -> Call[None]:
        while not ticket.state.done:
            if tell:
                tell(_progress(ticket.state))
            if until.left_s <= 0:
                raise _timed_out(ticket.state)
            asked_at = self.clock()
            holds_s = max(0.0, min(_HELD_WATCHED_S if tell else _HELD_S, until.left_s))
            ticket.state = yield from self._state(ticket.state.id, until, holds_s=holds_s)
            if not ticket.state.done and self.clock() - asked_at < min(_POLL_S, holds_s):
                yield Pause(_POLL_S)  # too many wait already, and it answered at once
        if tell and ticket.state.progress:
            tell(_progress(ticket.state))

    def _state(self, job_id: str, until: Deadline, *, holds_s: float) -> Call[JobState]:
        request = Request(method="GET", path=f"/v1/jobs/{job_id}", query={"wait": f"{holds_s:.3f}"}, holds_s=holds_s)
        patient = Deadline(min(until.at + 1, self.clock() + holds_s + self.timeout_s), self.clock)
        return (yield from self.read(JobState, request, patient))


def result_of(ticket: Ticket[R]) -> R:
    """The result of a job that has ended.

    Raises:
        LookalikeError: it has none, and why.
    """
    state = ticket.state
    if state.status == "succeeded":
        result = read_result(state.kind, state.result)
        ticket.bind_query(result)
        return cast(R, result)
    if state.error:
        raise failure(state.error, state.id)
    raise JobCanceled(f"job {state.id} was {state.status}", job_id=state.id)


def read_result(kind: str, result: dict[str, Any] | None) -> Answer:
    """A result as a model.

    Raises:
        UnexpectedAnswer: it is of a kind or form that this client does not know.
    """
    try:
        return RESULTS[kind].model_validate(result)
    except (KeyError, ValidationError) as exc:
        raise UnexpectedAnswer(f"the result of a job of kind {kind!r} is not one that this client can read") from exc


def failure(said: Failure, job_id: str) -> LookalikeError:
    """The error that a job ended with."""
    return error_class(said.code, 500)(said.detail, code=said.code, job_id=job_id)


def _timed_out(state: JobState) -> TimedOut:
    told = f"job {state.id} is still {state.status}"
    if state.queue:
        told += f" behind {state.queue.ahead} others; client.ready() says whether a worker serves"
    return TimedOut(told, job_id=state.id)


def _progress(state: JobState) -> Progress:
    if state.progress:
        return state.progress
    return Progress(stage=state.status, done=0, total=0, eta_s=state.queue.eta_s if state.queue else None)
