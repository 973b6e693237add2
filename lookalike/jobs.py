"""A submitted job in the caller's hands: what is known of it, and what can be done with it."""

from typing import TYPE_CHECKING, Generic, Self, TypeVar

from lookalike.models import Failure, JobState, Progress
from lookalike.progress import Wanted
from lookalike.tracking import Ticket

if TYPE_CHECKING:
    from lookalike.client import AsyncClient, Client

R = TypeVar("R")


class _Known(Generic[R]):
    """What is known of a job, as it stood when it was last asked about."""

    def __init__(self, ticket: Ticket[R]) -> None:
        self._ticket = ticket

    @property
    def id(self) -> str:
        return self._ticket.state.id

    @property
    def state(self) -> JobState:
        return self._ticket.state

    @property
    def status(self) -> str:
        return self._ticket.state.status

    @property
    def done(self) -> bool:
        return self._ticket.state.done

    @property
    def progress(self) -> Progress | None:
        return self._ticket.state.progress

    @property
    def error(self) -> Failure | None:
        return self._ticket.state.error

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.kind} {self.id} {self.status}>"


class Job(_Known[R]):
    """A submitted job."""

    def __init__(self, client: "Client", ticket: Ticket[R]) -> None:
        super().__init__(ticket)
        self._client = client

    def wait(self, timeout_s: float | None = None, *, progress: Wanted = False) -> R:
        """The result, once the job has ended.

        Args:
            timeout_s: None: for as long as it takes.
            progress: True for a bar, or a function that is given a Progress.

        Raises:
            TimedOut: it has not ended; the job goes on, and may be waited for again.
            LookalikeError: it failed, was cancelled or expired.
        """
        return self._client.run(self._client.calls.wait(self._ticket, timeout_s, progress))

    def refresh(self) -> Self:
        """Ask how it stands."""
        self._client.run(self._client.calls.refresh(self._ticket))
        return self

    def cancel(self) -> Self:
        """Ask that nobody works on it any more.

        Raises:
            JobFinished: it has ended otherwise.
        """
        self._client.run(self._client.calls.cancel(self._ticket))
        return self

    def retry(self) -> "Job[R]":
        """Submit it again after it failed: a new job."""
        return Job(self._client, self._client.run(self._client.calls.retry(self._ticket)))


class AsyncJob(_Known[R]):
    """A submitted job, of an AsyncClient."""

    def __init__(self, client: "AsyncClient", ticket: Ticket[R]) -> None:
        super().__init__(ticket)
        self._client = client

    async def wait(self, timeout_s: float | None = None, *, progress: Wanted = False) -> R:
        """As `Job.wait`."""
        return await self._client.run(self._client.calls.wait(self._ticket, timeout_s, progress))

    async def refresh(self) -> Self:
        """Ask how it stands."""
        await self._client.run(self._client.calls.refresh(self._ticket))
        return self

    async def cancel(self) -> Self:
        """As `Job.cancel`."""
        await self._client.run(self._client.calls.cancel(self._ticket))
        return self

    async def retry(self) -> "AsyncJob[R]":
        """Submit it again after it failed: a new job."""
        return AsyncJob(self._client, await self._client.run(self._client.calls.retry(self._ticket)))
