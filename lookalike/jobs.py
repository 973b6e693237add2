"""A submitted job: its state, and waiting, cancelling and retrying; blocking and asynchronous."""

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from lookalike.models import Failure, JobState, Progress
from lookalike.progress import ProgressOption
from lookalike.tracking import Ticket

if TYPE_CHECKING:
    from lookalike.client import AsyncClient, Client

R = TypeVar("R")


class _JobHandle(Generic[R]):
    """The last known state of a job; `refresh` and `wait` update it."""

    def __init__(self, ticket: Ticket[R]) -> None:
        self._ticket = ticket

    @property
    def id(self) -> str:
        """The job's id; `client.job(id)` gets the job again, also in another program."""
        return self._ticket.state.id

    @property
    def state(self) -> JobState:
        """The whole state as the service last reported it."""
        return self._ticket.state

    @property
    def status(self) -> str:
        """queued, running or canceling; finally succeeded, failed, canceled or expired."""
        return self._ticket.state.status

    @property
    def done(self) -> bool:
        """Whether the job had ended when it was last asked about."""
        return self._ticket.state.done

    @property
    def progress(self) -> Progress | None:
        """How far the job is; None for kinds that report none."""
        return self._ticket.state.progress

    @property
    def error(self) -> Failure | None:
        """Why the job failed; None if it has not."""
        return self._ticket.state.error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.kind} {self.id} {self.status}>"


class Job(_JobHandle[R]):
    """A job of a `Client`: wait for its result, cancel it, or retry it.

    `Client.submit`, `submit_embed`, `submit_reindex`, `submit_duplicates` and `job` return one.

    Example:
        >>> job = client.submit("photo.jpg", k=4, priority="bulk")
        >>> result = job.wait(timeout_s=60)
        >>> job.status
        'succeeded'
    """

    def __init__(self, client: "Client", ticket: Ticket[R]) -> None:
        super().__init__(ticket)
        self._client = client

    def wait(self, timeout_s: float | None = None, *, progress: ProgressOption = False) -> R:
        """Wait until the job has ended, and return its result.

        Args:
            timeout_s: seconds to wait; None waits as long as it takes.
            progress: True for a progress bar, or a function that is called with a `Progress`.

        Returns:
            The result, by the job's kind: SearchResult, EmbedResult, ImageChange, ReindexResult or
            DuplicatesResult.

        Raises:
            TimedOut: the job has not ended; it goes on, and can be waited for again.
            JobCanceled: it was cancelled, or it expired.
            LookalikeError: it failed, with the error's `code`.
        """
        return self._client.run(self._client.calls.wait(self._ticket, timeout_s, progress))

    def refresh(self) -> Self:
        """Ask the service for the job's state, and return the job with it.

        Raises:
            JobGone: it has ended and its result is no longer kept.
        """
        self._client.run(self._client.calls.refresh(self._ticket))
        return self

    def cancel(self) -> Self:
        """Cancel the job, and return it with its new state.

        A queued job is cancelled at once. A running one is `canceling` until its worker lets go of it.

        Raises:
            JobFinished: it has ended otherwise.
        """
        self._client.run(self._client.calls.cancel(self._ticket))
        return self

    def retry(self) -> "Job[R]":
        """Submit a failed job again.

        Returns:
            The new job.

        Raises:
            JobNotRetryable: it has not failed, or its photo is no longer kept.
        """
        return Job(self._client, self._client.run(self._client.calls.retry(self._ticket)))


class AsyncJob(_JobHandle[R]):
    """A job of an `AsyncClient`: as `Job`, with methods to be awaited.

    Example:
        >>> job = await client.submit("photo.jpg", k=4, priority="bulk")
        >>> result = await job.wait(timeout_s=60)
    """

    def __init__(self, client: "AsyncClient", ticket: Ticket[R]) -> None:
        super().__init__(ticket)
        self._client = client

    async def wait(self, timeout_s: float | None = None, *, progress: ProgressOption = False) -> R:
        """Wait until the job has ended, and return its result.

        Args:
            timeout_s: seconds to wait; None waits as long as it takes.
            progress: True for a progress bar, or a function that is called with a `Progress`.

        Returns:
            The result, by the job's kind: SearchResult, EmbedResult, ImageChange, ReindexResult or
            DuplicatesResult.

        Raises:
            TimedOut: the job has not ended; it goes on, and can be waited for again.
            JobCanceled: it was cancelled, or it expired.
            LookalikeError: it failed, with the error's `code`.
        """
        return await self._client.run(self._client.calls.wait(self._ticket, timeout_s, progress))

    async def refresh(self) -> Self:
        """Ask the service for the job's state, and return the job with it.

        Raises:
            JobGone: it has ended and its result is no longer kept.
        """
        await self._client.run(self._client.calls.refresh(self._ticket))
        return self

    async def cancel(self) -> Self:
        """Cancel the job, and return it with its new state.

        A queued job is cancelled at once. A running one is `canceling` until its worker lets go of it.

        Raises:
            JobFinished: it has ended otherwise.
        """
        await self._client.run(self._client.calls.cancel(self._ticket))
        return self

    async def retry(self) -> "AsyncJob[R]":
        """Submit a failed job again.

        Returns:
            The new job.

        Raises:
            JobNotRetryable: it has not failed, or its photo is no longer kept.
        """
        return AsyncJob(self._client, await self._client.run(self._client.calls.retry(self._ticket)))
