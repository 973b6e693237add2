"""Waits for jobs, cancels and retries them, and turns a finished job into its result or error."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError

from lookalike.error_codes import error_class
from lookalike.errors import JobCanceled, JobFinished, LookalikeError, TimedOut, UnexpectedAnswer
from lookalike.exchange import Call, Deadline, Exchange, Pause, Request
from lookalike.forms import idempotency_key_of
from lookalike.models import RESULTS, Answer, Failure, JobState, Progress, SearchResult
from lookalike.progress import ProgressCallback, ProgressOption, progress_callback

_HELD_S = 20.0  # long poll: the service holds its answer so long; proxies give up after 30 or 60
_HELD_WATCHED_S = 1.0  # where progress is reported
_POLL_S = 0.5

R = TypeVar("R")
_FOREVER_S = float("inf")


@dataclass
class Ticket(Generic[R]):
    """A submitted job, as the calls pass it around.

    Attributes:
        state: as the service last reported it.
        bind_query: attaches the query to the result before the caller gets it.
    """

    state: JobState
    bind_query: Callable[[Any], None] = field(default=lambda result: None)


class Tracking(Exchange):
    """The calls about one job."""

    def refresh(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Ask the service for the job's state."""
        ticket.state = yield from self._state(ticket.state.id, self.deadline(None), holds_s=0)
        return ticket

    def wait(self, ticket: Ticket[R], timeout_s: float | None = None, progress: ProgressOption = False) -> Call[R]:
        """Wait until the job has ended, and return its result.

        Args:
            ticket: the job.
            timeout_s: seconds to wait; None waits as long as it takes.
            progress: True for a progress bar, or a function that is called with a `Progress`.

        Raises:
            TimedOut: the job has not ended; it goes on.
            JobCanceled: it was cancelled, or it expired.
            LookalikeError: it failed, with the error's `code`.
        """
        until = self.deadline(_FOREVER_S if timeout_s is None else timeout_s)
        with progress_callback(progress) as report:
            yield from self._follow(ticket, until, report)
        return result_of(ticket)

    def retry(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Submit a failed job again.

        Returns:
            The new job.

        Raises:
            JobNotRetryable: it has not failed, or its photo is no longer kept.
        """
        headers = {"Idempotency-Key": idempotency_key_of({})}
        request = Request(method="POST", path=f"/v1/jobs/{ticket.state.id}/retry", headers=headers)
        return Ticket((yield from self.read(JobState, request, self.deadline(None))), ticket.bind_query)

    def cancel(self, ticket: Ticket[R]) -> Call[Ticket[R]]:
        """Cancel the job. A running one is `canceling` until its worker lets go of it.

        Raises:
            JobFinished: it has ended otherwise.
        """
        request = Request(method="POST", path=f"/v1/jobs/{ticket.state.id}/cancel")
        try:
            ticket.state = yield from self.read(JobState, request, self.deadline(None))
        except JobFinished:
            # Perhaps this call cancelled it: the answer to its first request may have been lost.
            yield from self.refresh(ticket)
            if ticket.state.status != "canceled":
                raise
        return ticket

    def _follow(self, ticket: Ticket[R], until: Deadline, report: ProgressCallback | None) -> Call[None]:
        while not ticket.state.done:
            if report:
                report(_progress(ticket.state))
            if until.left_s <= 0:
                raise _timed_out(ticket.state)
            asked_at = self.clock()
            holds_s = max(0.0, min(_HELD_WATCHED_S if report else _HELD_S, until.left_s))
            ticket.state = yield from self._state(ticket.state.id, until, holds_s=holds_s)
            if not ticket.state.done and self.clock() - asked_at < min(_POLL_S, holds_s):
                yield Pause(_POLL_S)  # the service has too many waiters and answered at once
        if report and ticket.state.progress:
            report(_progress(ticket.state))

    def _state(self, job_id: str, until: Deadline, *, holds_s: float) -> Call[JobState]:
        request = Request(method="GET", path=f"/v1/jobs/{job_id}", query={"wait": f"{holds_s:.3f}"}, holds_s=holds_s)
        give_up_at = Deadline(min(until.at + 1, self.clock() + holds_s + self.timeout_s), self.clock)
        return (yield from self.read(JobState, request, give_up_at))


def result_of(ticket: Ticket[R]) -> R:
    """Return the result of a job that has ended.

    Raises:
        JobCanceled: it was cancelled, or it expired.
        LookalikeError: it failed, with the error's `code`.
    """
    state = ticket.state
    if state.status == "succeeded":
        result = read_result(state.kind, state.result, state.id)
        ticket.bind_query(result)
        return cast(R, result)
    if state.error:
        raise failure(state.error, state.id)
    raise JobCanceled(f"job {state.id} was {state.status}", job_id=state.id)


def read_result(kind: str, result: dict[str, Any] | None, job_id: str) -> Answer:
    """Parse the result of a job.

    Args:
        kind: the job's kind.
        result: as JSON.
        job_id: of the job.

    Raises:
        UnexpectedAnswer: this client does not know the kind, or the result does not fit its model.
    """
    try:
        found = RESULTS[kind].model_validate(result)
    except (KeyError, ValidationError) as exc:
        raise UnexpectedAnswer(f"the result of a job of kind {kind!r} is not one that this client can read") from exc
    if isinstance(found, SearchResult):
        found._origin.job_id = job_id
    return found


def failure(error: Failure, job_id: str) -> LookalikeError:
    """Make the exception for the error that a job failed with."""
    return error_class(error.code, 500)(error.detail, code=error.code, job_id=job_id)


def _timed_out(state: JobState) -> TimedOut:
    detail = f"job {state.id} is still {state.status}"
    if state.queue:
        detail += f" behind {state.queue.ahead} others; client.ready() says whether a worker serves"
    return TimedOut(detail, job_id=state.id)


def _progress(state: JobState) -> Progress:
    if state.progress:
        return state.progress
    return Progress(stage=state.status, done=0, total=0, eta_s=state.queue.eta_s if state.queue else None)
